/**
 * Two servers under one `walkeep serve`, commits of both wait for it. Each sync and write of one's
 * receiver is delayed by 500 ms (strace injects that): what the other's commits take, beside what
 * they take without, in interleaved pairs.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { PostgresServer } from '../test/support/postgres.js';
import { Serving } from '../test/support/serving.js';
import { findTool } from '../test/support/tools.js';
import { print, ratioText, saveResult } from './report.js';
import { entryOf, insertLoad, MEASURED, prepare, waitSynchronous } from './serve-load.js';
import { median, quantile } from './statistics.js';

const SECONDS = Number(process.env.WALKEEP_BENCH_SECONDS ?? 5);
const PAIRS = Number(process.env.WALKEEP_BENCH_PAIRS ?? 20);
/** Microseconds. */
const DELAY = 500_000;

const pgbench = findTool('pgbench', 15) ?? '';
const strace = '/usr/bin/strace';
if (!pgbench || !existsSync(strace)) {
  process.stdout.write('pgbench or strace is not installed: nothing is measured.\n');
  process.exit(0);
}

const [slow, other] = await Promise.all([
  PostgresServer.create(MEASURED),
  PostgresServer.create(MEASURED),
]);
const serving = await Serving.start({ slow: entryOf(slow), other: entryOf(other) });
for (const [name, server] of [
  ['slow', slow],
  ['other', other],
] as const) {
  await prepare(server);
  await serving.waitState(name, 'streaming');
  await waitSynchronous(server, 'walkeep');
}

async function delay(): Promise<ChildProcess> {
  const calls = 'fsync,fdatasync,pwrite64,pwritev';
  const child = spawn(
    strace,
    [
      ...['-f', '-q', '-o', '/dev/null', '-p', `${await serving.pidOf('slow')}`],
      ...['-e', `trace=${calls}`, '-e', `inject=${calls}:delay_enter=${DELAY}`],
    ],
    { stdio: 'ignore' },
  );
  await once(child, 'spawn');
  return child;
}

/** In ms: of the other's commits, and the median of the slow one's, which shows that it is so. */
async function measure(injected: boolean): Promise<{ p50: number; p99: number; slow: number }> {
  const tracer = injected ? await delay() : undefined;
  const load = { seconds: SECONDS, clients: 1 };
  const [beside, own] = await Promise.all([
    insertLoad(pgbench, slow, { ...load, rate: 20 }),
    insertLoad(pgbench, other, load),
  ]);
  if (tracer) {
    const gone = once(tracer, 'exit');
    tracer.kill('SIGTERM');
    await gone;
  }
  return {
    p50: median(own.latencies),
    p99: quantile(own.latencies, 0.99),
    slow: median(beside.latencies),
  };
}

const runs: Record<'plain' | 'delayed', Awaited<ReturnType<typeof measure>>[]> = {
  ...{ plain: [], delayed: [] },
};
for (let pair = 0; pair < PAIRS; pair += 1) {
  const order = pair % 2 === 0 ? (['plain', 'delayed'] as const) : (['delayed', 'plain'] as const);
  for (const kind of order) runs[kind].push(await measure(kind === 'delayed'));
}
const row = (name: string, of: 'p50' | 'p99' | 'slow') => [
  name,
  median(runs.plain.map((run) => run[of])).toFixed(2),
  median(runs.delayed.map((run) => run[of])).toFixed(2),
  ratioText(
    runs.delayed.map((run) => run[of]),
    runs.plain.map((run) => run[of]),
  ),
];
print(
  `Commits beside a server whose archive takes 500 ms to sync, ${PAIRS} pairs of ${SECONDS} s`,
  ['ms', 'without', 'beside it', 'ratio [95 %]'],
  [row('median', 'p50'), row('p99', 'p99'), row('the slow one itself', 'slow')],
);
saveResult('serve-isolation', runs);
await serving.run.stop('SIGKILL');
await Promise.all([slow.destroy(), other.destroy()]);
process.exit(0);
