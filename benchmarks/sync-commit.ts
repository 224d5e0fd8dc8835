/**
 * Commits that wait for the receiver: single-row inserts by pgbench with the receiver as the only
 * synchronous standby, in interleaved pairs with pg_receivewal --synchronous.
 */
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { PostgresServer } from '../test/support/postgres.js';
import { findTool } from '../test/support/tools.js';
import { waitFor } from '../test/support/wait.js';
import { type Contender, pgReceivewal, Running, walkeep } from './receivers.js';
import { print, ratioText, saveResult, scratchRoot } from './report.js';
import { median } from './statistics.js';

const SECONDS = Number(process.env.WALKEEP_BENCH_SECONDS ?? 8);
const PAIRS = Number(process.env.WALKEEP_BENCH_PAIRS ?? 10);
const CLIENTS = (process.env.WALKEEP_BENCH_CLIENTS ?? '1,8,32').split(',').map(Number);
const MODES = (process.env.WALKEEP_BENCH_MODES ?? 'on,remote_write').split(',');

const pgbench = findTool('pgbench', 15);
const theirs = pgReceivewal();
if (!pgbench || !theirs) {
  process.stdout.write('pgbench or pg_receivewal is not installed: nothing to compare with.\n');
  process.exit(0);
}

const server = await PostgresServer.create({
  major: 15,
  segmentSizeMb: 16,
  fsync: true,
  settings: { max_connections: '60', shared_buffers: '256MB', max_wal_size: '4GB' },
});
await server.sql('CREATE TABLE s (id bigserial PRIMARY KEY, v text)');
const script = join(scratchRoot(), 'insert.sql');
writeFileSync(script, "INSERT INTO s (v) VALUES ('some value that is thirty bytes');\n");

async function load(clients: number): Promise<{ tps: number; latency: number }> {
  const args = ['-n', '-f', script, '-c', `${clients}`, '-j', '2', '-T', `${SECONDS}`, 'postgres'];
  const { stdout } = await promisify(execFile)(pgbench as string, args, {
    env: { ...process.env, ...server.env },
  });
  return {
    tps: Number(/tps = ([\d.]+)/.exec(stdout)?.[1]),
    latency: Number(/latency average = ([\d.]+)/.exec(stdout)?.[1]),
  };
}

async function measure(contender: Contender | undefined, mode: string, clients: number) {
  await server.configure({ synchronous_commit: mode, synchronous_standby_names: '' });
  if (!contender) return load(clients);
  const directory = mkdtempSync(join(scratchRoot(), 'wal-'));
  const running = new Running(
    contender,
    ['-D', directory, '--synchronous', '-n', '-d', server.conninfo({ host: server.socketDir })],
    { PGAPPNAME: 'bench' },
  );
  await server.configure({ synchronous_standby_names: 'bench' });
  await waitFor(
    async () =>
      (await server.sql("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'")).length > 0,
    { what: 'a synchronous standby' },
  );
  const result = await load(clients);
  await server.configure({ synchronous_standby_names: '' });
  await running.stop();
  rmSync(directory, { recursive: true });
  return result;
}

const raw: unknown[] = [];
for (const mode of MODES) {
  const rows: string[][] = [];
  for (const clients of CLIENTS) {
    const ours: number[] = [];
    const others: number[] = [];
    const latencies: [number[], number[]] = [[], []];
    const alone: number[] = [];
    for (let pair = 0; pair < PAIRS; pair += 1) {
      // Who goes first alternates: the second run of a pair finds warmer caches.
      const order = pair % 2 === 0 ? [walkeep, theirs] : [theirs, walkeep];
      for (const c of order) {
        const { tps, latency } = await measure(c, mode, clients);
        (c === walkeep ? ours : others).push(tps);
        latencies[c === walkeep ? 0 : 1].push(latency);
      }
      if (pair % 3 === 0) alone.push((await measure(undefined, mode, clients)).tps);
    }
    raw.push({ mode, clients, walkeep: ours, pg_receivewal: others, none: alone });
    rows.push([
      `${clients}`,
      median(ours).toFixed(0),
      median(others).toFixed(0),
      ratioText(ours, others),
      median(latencies[0]).toFixed(3),
      median(latencies[1]).toFixed(3),
      median(alone).toFixed(0),
    ]);
  }
  print(
    `Sync commits, synchronous_commit = ${mode}, ${PAIRS} pairs of ${SECONDS} s`,
    [
      'clients',
      'walkeep TPS',
      'pg_receivewal TPS',
      'ratio [95 %]',
      'walkeep ms',
      'pg_receivewal ms',
      'no standby TPS',
    ],
    rows,
  );
}
saveResult('sync-commit', raw);
await server.destroy();
process.exit(0);
