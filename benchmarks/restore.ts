/**
 * A restore with two threads beside pgBackRest's with two processes, of the same server in the same
 * codec, and beside what the system has: the volumes of the backup decompressed, unpacked and synced.
 * Rounds are interleaved. Then the memory that a backup and a restore took.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { copyPackage } from '../test/support/package-copy.js';
import { PostgresServer } from '../test/support/postgres.js';
import { giveToServer, serverUser } from '../test/support/scratch.js';
import { findTool } from '../test/support/tools.js';
import { PgBackRest } from './pgbackrest.js';
import { print, saveResult, serverScratch } from './report.js';
import { median, pairedRatio } from './statistics.js';
import { peakMemory, type Timed, timed } from './timed-command.js';

const MEGABYTES = Number(process.env.WALKEEP_BENCH_MB ?? 2048);
/** None: only the memory is looked at. */
const ROUNDS = Number(process.env.WALKEEP_BENCH_ROUNDS ?? 5);
/** Small ones, besides those of the database. */
const FILES = Number(process.env.WALKEEP_BENCH_FILES ?? 0);
const FILES_A_DIRECTORY = 1000;
/** A row of the table below is that long on its page. */
const ROW = 145;
/** As walkeep, pgBackRest and the system call it. */
const CODECS = [
  ['zstd', 'zst', 'zstd'],
  ['gzip:1', 'gz', 'gzip'],
  ['lz4', 'lz4', 'lz4'],
] as const;

const server = await PostgresServer.create({
  major: 15,
  segmentSizeMb: 16,
  // pgBackRest copies a server that is stopped, with all the WAL that it has kept.
  settings: { max_wal_size: '64MB', min_wal_size: '32MB', shared_buffers: '512MB' },
});
await server.sql(
  `CREATE TABLE t AS SELECT i, md5(i::text) AS a, md5((i * 7)::text) AS b,
     repeat(chr(65 + i % 26), 40) AS c FROM generate_series(1, ${Math.floor((MEGABYTES * 1024 * 1024) / ROW)}) i`,
);
await server.sql('VACUUM t');
await server.sql('CHECKPOINT');
makeFiles(join(server.dataDir, 'many'));
const [row] = await server.sql('SELECT sum(pg_database_size(oid)) AS bytes FROM pg_database');
const megabytes = Number(row?.bytes) / 1e6;

const root = serverScratch('restore');
const walkeep = [process.execPath, join(copyPackage(), 'bin', 'walkeep')];
const memory: Record<string, number> = {};
const archiveOf = (codec: string) => join(root, `archive-${codec}`);
for (const [codec] of CODECS) {
  const archive = archiveOf(codec);
  timed([...walkeep, 'store', '--init', archive], '/');
  // The archive lacks the WAL: what the server puts into the backup is one segment.
  const options = ['-d', server.conninfo(), '-Z', codec, '--wal', 'include'];
  memory[`backup ${codec}`] = await peakMemory([...walkeep, 'backup', archive, ...options], '/');
}
await server.stop();

const commands: Record<string, string[]> = {};
const targetOf = (name: string) => join(root, name.replace(' ', '-'));
for (const [codec, type, program] of CODECS) {
  const archive = archiveOf(codec);
  const ours = `walkeep ${codec}`;
  commands[ours] = [...walkeep, 'restore', archive, targetOf(ours), '-j', '2'];
  if (ROUNDS === 0) continue;
  const theirs = `pgBackRest ${codec}`;
  const level = type === 'gz' ? { 'compress-level': '1' } : {};
  const options = { 'process-max': '2', ...level };
  const repository = PgBackRest.create(join(root, type), server.dataDir, type, options);
  repository?.backupStopped();
  if (repository) commands[theirs] = repository.restore(targetOf(theirs));
  if (!findTool(program)) continue;
  const script = 'cat "$1"/base.tar.* | "$2" -dc | tar -x -C "$3"; sync';
  const system = `tar ${codec}`;
  commands[system] = ['sh', '-c', script, 'sh', backupIn(archive), program, targetOf(system)];
}

const results: Record<string, Timed[]> = {};
for (let round = 0; round < ROUNDS; round += 1) {
  const order = Object.entries(commands);
  order.push(...order.splice(0, round % order.length));
  for (const [name, command] of order) {
    empty(targetOf(name));
    // What was written and removed before is nobody's burden.
    execFileSync('sync');
    const taken = results[name] ?? [];
    results[name] = taken;
    taken.push(timed(command, '/'));
  }
}
for (const [codec] of CODECS) {
  const name = `walkeep ${codec}`;
  for (const other of [`pgBackRest ${codec}`, `tar ${codec}`]) {
    if (!commands[other]) continue;
    const pair = [name, other].map((one) => join(targetOf(one), 'base'));
    execFileSync('diff', ['-rq', ...pair]);
  }
  empty(targetOf(name));
  memory[`restore ${codec}`] = await peakMemory(commands[name] as string[], '/');
}

const speeds = (name: string) => (results[name] ?? []).map(({ ms }) => (megabytes / ms) * 1000);
const ratioTo = (name: string, other: string): string => {
  if (!name.startsWith('walkeep') || !results[other]) return '';
  const { ratio, low, high } = pairedRatio(speeds(name), speeds(other));
  return `${ratio.toFixed(2)} [${low.toFixed(2)}, ${high.toFixed(2)}]`;
};
if (ROUNDS > 0)
  print(
    `A restore of ${megabytes.toFixed(0)} MB and ${FILES} more files, ${ROUNDS} rounds`,
    ['command', 'MB/s', 'to pgBackRest', 'to tar', 'CPU s/GB'],
    Object.keys(commands).map((name) => [
      name,
      median(speeds(name)).toFixed(0),
      ratioTo(name, name.replace('walkeep', 'pgBackRest')),
      ratioTo(name, name.replace('walkeep', 'tar')),
      median((results[name] ?? []).map(({ cpuMs }) => cpuMs / megabytes)).toFixed(2),
    ]),
  );
print(
  'Peak memory',
  ['command', 'RSS MB'],
  Object.entries(memory).map(([name, peak]) => [name, peak.toFixed(0)]),
);
saveResult('restore', { megabytes, files: FILES, results, memory });
await server.destroy();

/** The directory of the only backup. */
function backupIn(archive: string): string {
  const all = readdirSync(archive, { recursive: true, encoding: 'utf8' });
  return dirname(join(archive, all.find((name) => basename(name) === 'backup.json') as string));
}

function empty(path: string): void {
  rmSync(path, { recursive: true, force: true });
  mkdirSync(path, { mode: 0o700 });
  giveToServer(path);
}

/** In the data directory, where the server takes them for somebody's and copies them. */
function makeFiles(directory: string): void {
  if (FILES === 0) return;
  for (let i = 0; i < FILES; i += 1) {
    const inner = join(directory, `${Math.floor(i / FILES_A_DIRECTORY)}`);
    if (i % FILES_A_DIRECTORY === 0) mkdirSync(inner, { recursive: true });
    writeFileSync(join(inner, `${i}`), `${i}`.padEnd(1000));
  }
  const { uid, gid } = serverUser;
  if (uid !== undefined) execFileSync('chown', ['-R', `${uid}:${gid}`, directory]);
}
