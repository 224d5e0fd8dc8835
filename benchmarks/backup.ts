/**
 * A base backup into a directory beside pg_basebackup's tar of the same server, each without WAL and
 * with everything synced: plain, and with gzip:1. Rounds are interleaved.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { copyPackage } from '../test/support/package-copy.js';
import { PostgresServer } from '../test/support/postgres.js';
import { findTool } from '../test/support/tools.js';
import { print, saveResult, serverScratch } from './report.js';
import { median, pairedRatio } from './statistics.js';
import { type Timed, timed } from './timed-command.js';

const MEGABYTES = Number(process.env.WALKEEP_BENCH_MB ?? 2048);
const ROUNDS = Number(process.env.WALKEEP_BENCH_ROUNDS ?? 5);
/** A row of the table below is that long on its page. */
const ROW = 145;

const server = await PostgresServer.create({
  major: 15,
  segmentSizeMb: 16,
  settings: { max_wal_size: '8GB', shared_buffers: '512MB', wal_level: 'replica' },
});
await server.sql(
  `CREATE TABLE t AS SELECT i, md5(i::text) AS a, md5((i * 7)::text) AS b,
     repeat(chr(65 + i % 26), 40) AS c FROM generate_series(1, ${Math.floor((MEGABYTES * 1024 * 1024) / ROW)}) i`,
);
await server.sql('VACUUM t');
await server.sql('CHECKPOINT');
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

const results: Record<string, Timed[]> = {};
for (let round = 0; round < ROUNDS; round += 1) {
  const order = Object.entries(commands);
  order.push(...order.splice(0, round % order.length));
  for (const [name, command] of order) {
    for (const kind of ['ours', 'theirs']) {
      for (const codec of ['plain', 'gzip:1']) {
        const directory = target(`${kind}-${codec}`);
        rmSync(directory, { recursive: true, force: true });
        if (kind === 'ours') timed([process.execPath, program, 'store', '--init', directory], '/');
      }
    }
    const taken = results[name] ?? [];
    results[name] = taken;
    taken.push(timed(command, '/'));
  }
}
const speeds = (name: string) => (results[name] ?? []).map(({ ms }) => (megabytes / ms) * 1000);
print(
  `A backup of ${megabytes.toFixed(0)} MB, ${ROUNDS} rounds`,
  ['command', 'MB/s', 'ratio [95 %]', 'CPU s/GB'],
  Object.keys(commands).map((name) => {
    const other = speeds(name.replace(/^\w+/, 'pg_basebackup'));
    const { ratio, low, high } = pairedRatio(speeds(name), other);
    const isOurs = name.startsWith('walkeep') && other.length > 0;
    const cpu = median((results[name] ?? []).map(({ cpuMs }) => cpuMs / megabytes));
    return [
      name,
      median(speeds(name)).toFixed(0),
      isOurs ? `${ratio.toFixed(2)} [${low.toFixed(2)}, ${high.toFixed(2)}]` : '',
      cpu.toFixed(2),
    ];
  }),
);
saveResult('backup', { megabytes, results });
await server.destroy();
