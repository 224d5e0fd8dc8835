/**
 * Commits that wait for `walkeep serve`, whose metrics are scraped each second and whose page is
 * watched, beside those that wait for `walkeep receive`, in interleaved pairs; and what the process
 * that watches over 20 servers has of memory.
 */
import { readFileSync } from 'node:fs';
import { type ClientRequest, get } from 'node:http';
import { PostgresServer } from '../test/support/postgres.js';
import { freePort } from '../test/support/server-config.js';
import { Serving } from '../test/support/serving.js';
import { findTool } from '../test/support/tools.js';
import { waitFor } from '../test/support/wait.js';
import { Running, walkeep } from './receivers.js';
import { print, ratioText, saveResult } from './report.js';
import { entryOf, insertLoad, MEASURED, prepare, waitSynchronous } from './serve-load.js';
import { median } from './statistics.js';

const SECONDS = Number(process.env.WALKEEP_BENCH_SECONDS ?? 8);
const PAIRS = Number(process.env.WALKEEP_BENCH_PAIRS ?? 20);
const CLIENTS = Number(process.env.WALKEEP_BENCH_CLIENTS ?? 1);
const WATCHING = 20;
const SERVERS = 20;

const pgbench = findTool('pgbench', 15) ?? '';
if (!pgbench) {
  process.stdout.write('pgbench is not installed: nothing is measured.\n');
  process.exit(0);
}

const server = await PostgresServer.create(MEASURED);
await prepare(server);
const load = { seconds: SECONDS, clients: CLIENTS };

async function bare(): Promise<number> {
  const { directory } = entryOf(server);
  const running = new Running(
    walkeep,
    ['-D', `${directory}`, '--synchronous', '-d', server.conninfo({ host: server.socketDir })],
    { PGAPPNAME: 'walkeep' },
  );
  await waitSynchronous(server, 'walkeep');
  const { tps } = await insertLoad(pgbench, server, load);
  await server.configure({ synchronous_standby_names: '' });
  await running.stop();
  return tps;
}

/** Scrapes each second, and watches the page in so many windows. */
async function lookedAt(metrics: number, web: number): Promise<() => void> {
  const watching: ClientRequest[] = [];
  for (let i = 0; i < WATCHING; i += 1) {
    watching.push(get(`http://127.0.0.1:${web}/events`, (answer) => answer.resume()));
  }
  const scrape = setInterval(
    () => get(`http://127.0.0.1:${metrics}/metrics`, (answer) => answer.resume()),
    1000,
  );
  await Promise.all(watching.map((one) => new Promise((resolve) => one.once('response', resolve))));
  return () => {
    clearInterval(scrape);
    for (const one of watching) one.destroy();
  };
}

async function served(): Promise<number> {
  const [metrics, web] = [await freePort(), await freePort()];
  const serving = await Serving.start(
    { one: entryOf(server) },
    { metrics: { listen: `127.0.0.1:${metrics}` }, web: { listen: `127.0.0.1:${web}` } },
  );
  await serving.waitState('one', 'streaming');
  await waitSynchronous(server, 'walkeep');
  const done = await lookedAt(metrics, web);
  const { tps } = await insertLoad(pgbench, server, load);
  done();
  await server.configure({ synchronous_standby_names: '' });
  await serving.run.stop('SIGTERM');
  return tps;
}

const runs: Record<'receive' | 'serve', number[]> = { receive: [], serve: [] };
for (let pair = 0; pair < PAIRS; pair += 1) {
  const order = pair % 2 === 0 ? (['receive', 'serve'] as const) : (['serve', 'receive'] as const);
  for (const kind of order) runs[kind].push(await (kind === 'serve' ? served() : bare()));
}
print(
  `Sync commits, ${CLIENTS} clients, ${PAIRS} pairs of ${SECONDS} s, scraped, ${WATCHING} pages watching`,
  ['clients', 'serve TPS', 'receive TPS', 'ratio [95 %]'],
  [
    [
      `${CLIENTS}`,
      median(runs.serve).toFixed(0),
      median(runs.receive).toFixed(0),
      ratioText(runs.serve, runs.receive),
    ],
  ],
);

/** MB of the process that watches over so many servers, all of the same PostgreSQL. */
async function memory(): Promise<number> {
  const [metrics, web] = [await freePort(), await freePort()];
  const names = Array.from({ length: SERVERS }, (_, i) => `server${i}`);
  const serving = await Serving.start(
    Object.fromEntries(names.map((name) => [name, { ...entryOf(server), synchronous: false }])),
    { metrics: { listen: `127.0.0.1:${metrics}` }, web: { listen: `127.0.0.1:${web}` } },
  );
  for (const name of names) await serving.waitState(name, 'streaming');
  const done = await lookedAt(metrics, web);
  const until = performance.now() + SECONDS * 4000;
  let most = 0;
  await waitFor(
    () => {
      const status = readFileSync(`/proc/${serving.run.pid}/status`, 'latin1');
      most = Math.max(most, Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) / 1024);
      return performance.now() > until;
    },
    { timeoutMs: SECONDS * 10_000 },
  );
  done();
  await serving.run.stop('SIGTERM');
  return most;
}
const rss = await memory();
print(
  `The process that watches over ${SERVERS} servers, scraped, ${WATCHING} pages watching`,
  ['RSS, MB at most'],
  [[rss.toFixed(0)]],
);
saveResult('serve-overhead', { runs, rss });
await server.destroy();
process.exit(0);
