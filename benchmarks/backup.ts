/**
 * A base backup into a directory beside pg_basebackup's tar of the same server, each without WAL and
 * with everything synced: plain, and with gzip:1. Rounds are interleaved.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { copyPackage } from '../test/support/package-copy.js';
import { PostgresServer } from '../test/support/postgres.js';
import { findTool } from '../test/support/tools.js';
import { fillTable } from './filled-table.js';
import { printSpeeds, saveResult, serverScratch } from './report.js';
import { timed, timedInTurn } from './timed-command.js';

const MEGABYTES = Number(process.env.WALKEEP_BENCH_MB ?? 2048);
const ROUNDS = Number(process.env.WALKEEP_BENCH_ROUNDS ?? 5);

const server = await PostgresServer.create({
  major: 15,
  segmentSizeMb: 16,
  settings: { max_wal_size: '8GB', shared_buffers: '512MB', wal_level: 'replica' },
});
await fillTable(server, MEGABYTES);
const [row] = await server.sql('SELECT sum(pg_database_size(oid)) AS bytes FROM pg_database');
const megabytes = Number(row?.bytes) / 1e6;

const root = serverScratch('backup');
const program = join(copyPackage(), 'bin', 'walkeep');
const theirs = findTool('pg_basebackup', 15);
const connection = server.conninfo();
const target = (name: string) => join(root, name);
const commands: Record<string, string[]> = {};
for (const [name, ours, options] of [
  ['plain', 'none', []],
  ['gzip:1', 'gzip:1', ['--compress=client-gzip:1']],
] as const) {
  const archive = target(`ours-${name}`);
  // The archive lacks the WAL: what the server puts into the backup is one segment.
  const own = [process.execPath, program, 'backup', archive, '-d', connection];
  commands[`walkeep ${name}`] = [...own, '-Z', ours, '--wal', 'include'];
  if (!theirs) continue;
  const plain = [theirs, '-d', connection, '-Ft', '-X', 'none', '-c', 'fast'];
  commands[`pg_basebackup ${name}`] = [...plain, ...options, '-D', target(`theirs-${name}`)];
}

const results = timedInTurn(commands, ROUNDS, () => {
  for (const kind of ['ours', 'theirs']) {
    for (const codec of ['plain', 'gzip:1']) {
      const directory = target(`${kind}-${codec}`);
      rmSync(directory, { recursive: true, force: true });
      if (kind === 'ours') timed([process.execPath, program, 'store', '--init', directory], '/');
    }
  }
});
printSpeeds(`A backup of ${megabytes.toFixed(0)} MB, ${ROUNDS} rounds`, megabytes, results, {
  'ratio [95 %]': (name) =>
    name.startsWith('walkeep') ? name.replace('walkeep', 'pg_basebackup') : undefined,
});
saveResult('backup', { megabytes, results });
await server.destroy();
