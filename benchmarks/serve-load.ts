import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { PostgresServer, ServerOptions } from '../test/support/postgres.js';
import type { ServerEntry } from '../test/support/serving.js';
import { waitFor } from '../test/support/wait.js';
import { scratchRoot } from './report.js';

const exec = promisify(execFile);

/** What servers that are measured under `walkeep serve` have: commits wait for it. */
export const MEASURED = {
  ...({ major: 15, segmentSizeMb: 16, fsync: true, fresh: true } as const),
  settings: {
    max_connections: '60',
    max_wal_senders: '30',
    shared_buffers: '128MB',
    max_wal_size: '4GB',
  },
} satisfies ServerOptions;

/** As a configuration has it; the directory is made. */
export function entryOf(server: PostgresServer): ServerEntry {
  return {
    connection: `host=${server.socketDir} port=${server.port} user=postgres`,
    ...{ directory: mkdtempSync(join(scratchRoot(), 'wal-')), synchronous: true },
  };
}

/** From now on commits wait for the standby of that name, which is there. */
export async function waitSynchronous(server: PostgresServer, name: string): Promise<void> {
  await server.configure({ synchronous_standby_names: name, synchronous_commit: 'on' });
  await waitFor(
    async () =>
      (await server.sql("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'")).length > 0,
    { what: 'a synchronous standby' },
  );
}

export async function prepare(server: PostgresServer): Promise<void> {
  await server.sql('CREATE TABLE IF NOT EXISTS s (id bigserial PRIMARY KEY, v text)');
}

export interface Load {
  seconds: number;
  clients: number;
  /** Transactions a second that are begun, whatever those before take; else as many as can be. */
  rate?: number;
}

/** Single-row inserts: how many a second, and how long each took, in ms. */
export async function insertLoad(
  pgbench: string,
  server: PostgresServer,
  { seconds, clients, rate }: Load,
): Promise<{ tps: number; latencies: number[] }> {
  const logs = mkdtempSync(join(scratchRoot(), 'log-'));
  const script = join(logs, 'insert.sql');
  writeFileSync(script, "INSERT INTO s (v) VALUES ('some value that is thirty bytes');\n");
  const args = ['-n', '-f', script, '-c', `${clients}`, '-j', '1', '-T', `${seconds}`];
  const limit = rate === undefined ? [] : ['-R', `${rate}`];
  const log = ['-l', `--log-prefix=${join(logs, 'log')}`];
  const { stdout } = await exec(pgbench, [...args, ...limit, ...log, 'postgres'], {
    env: { ...process.env, ...server.env },
  });
  const latencies = readdirSync(logs)
    .filter((name) => name.startsWith('log'))
    .flatMap((name) => readFileSync(join(logs, name), 'latin1').trim().split('\n'))
    // The third field is the latency in µs (pgbench, "Per-Transaction Logging").
    .map((line) => Number(line.split(' ')[2]) / 1000);
  rmSync(logs, { recursive: true });
  return { tps: Number(/tps = ([\d.]+)/.exec(stdout)?.[1]), latencies };
}
