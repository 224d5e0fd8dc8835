/**
 * A restore with two threads beside pgBackRest's with two processes, of the same server in the same
 * codec, and beside what the system has: the volumes of the backup decompressed, unpacked and synced.
 * Rounds are interleaved. Then the memory that a backup and a restore took.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { copyPackage } from '../test/support/package-copy.js';
import { PostgresServer } from '../test/support/postgres.js';
import { giveToServer, serverUser } from '../test/support/scratch.js';
import { findTool } from '../test/support/tools.js';
import { fillTable } from './filled-table.js';
import { PgBackRest } from './pgbackrest.js';
import { print, printSpeeds, saveResult, serverScratch } from './report.js';
import { backupsIn } from './stored-backups.js';
import { peakMemory, timed, timedInTurn } from './timed-command.js';

const MEGABYTES = Number(process.env.WALKEEP_BENCH_MB ?? 2048);
/** None: only the memory is looked at. */
const ROUNDS = Number(process.env.WALKEEP_BENCH_ROUNDS ?? 5);
/** Small ones, besides those of the database. */
const FILES = Number(process.env.WALKEEP_BENCH_FILES ?? 0);
const FILES_A_DIRECTORY = 1000;
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
await fillTable(server, MEGABYTES);
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
  commands[system] = ['sh', '-c', script, 'sh', ...backupsIn(archive), program, targetOf(system)];
}

const results = timedInTurn(commands, ROUNDS, (name) => {
  empty(targetOf(name));
  // What was written and removed before is nobody's burden.
  execFileSync('sync');
});
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

const beside = (other: string) => (name: string) =>
  name.startsWith('walkeep') ? name.replace('walkeep', other) : undefined;
if (ROUNDS > 0)
  printSpeeds(
    `A restore of ${megabytes.toFixed(0)} MB and ${FILES} more files, ${ROUNDS} rounds`,
    megabytes,
    results,
    { 'to pgBackRest': beside('pgBackRest'), 'to tar': beside('tar') },
  );
print(
  'Peak memory',
  ['command', 'RSS MB'],
  Object.entries(memory).map(([name, peak]) => [name, peak.toFixed(0)]),
);
saveResult('restore', { megabytes, files: FILES, results, memory });
await server.destroy();

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
