/**
 * restore_command: one process per 16 MB segment of real WAL, as a recovering server runs it.
 * Rounds are interleaved, begin with another command each time, and take one segment each; every
 * file that was served is compared with the original.
 */
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { compressFile } from '../src/codec/codec.js';
import { copyPackage } from '../test/support/package-copy.js';
import { giveToServer } from '../test/support/scratch.js';
import { waitFor } from '../test/support/wait.js';
import { PgBackRest } from './pgbackrest.js';
import { print, ratioText, saveResult, serverScratch } from './report.js';
import { median } from './statistics.js';
import { type Timed, timed } from './timed-command.js';
import { createSource, originals, updateAtRandom } from './wal-source.js';

const ROUNDS = Number(process.env.WALKEEP_BENCH_ROUNDS ?? 21);
const AHEAD = 4;
const ROWS = 300_000;

const server = await createSource(ROWS);
// One before the first round, and as many behind the last as are read ahead.
const names = await updateAtRandom(server, ROWS, 1 + ROUNDS + AHEAD);
const wanted = originals(server, names);

const root = serverScratch('fetch');
const directory = (name: string): string => {
  const path = join(root, name);
  mkdirSync(path);
  giveToServer(path);
  return path;
};
const archives = { none: directory('plain'), gzip: directory('gz'), lz4: directory('lz4') };
const { segmentSize } = server;
for (const name of names) {
  const path = join(server.archiveDir, name);
  const plain = join(archives.none, name);
  const gz = join(archives.gzip, `${name}.gz`);
  const lz4 = join(archives.lz4, `${name}.lz4`);
  copyFileSync(path, plain);
  await compressFile(path, gz, segmentSize, { method: 'gzip', sync: false });
  await compressFile(path, lz4, segmentSize, { method: 'lz4', sync: false });
  for (const file of [plain, gz, lz4]) giveToServer(file);
}
const stored = names.map((name) => join(server.archiveDir, name));
const plainRepository = PgBackRest.create(join(root, 'repo-none'), server.dataDir, 'none');
const gzRepository = PgBackRest.create(join(root, 'repo-gz'), server.dataDir, 'gz');
plainRepository?.push(stored);
gzRepository?.push(stored);

/** What restore_command sees of a server: where it runs, its pg_control, its pg_wal. */
const dataDir = directory('data');
for (const name of ['global', 'pg_wal']) directory(join('data', name));
const control = join(dataDir, 'global', 'pg_control');
copyFileSync(join(server.dataDir, 'global', 'pg_control'), control);
giveToServer(control);
await server.destroy();
const target = join('pg_wal', 'RECOVERYXLOG');
const spool = join(dataDir, 'pg_wal', '.walkeep-spool');

const node = process.execPath;
const fetch = (archive: string, ...options: string[]) => {
  const program = [node, join(packageCopy, 'bin', 'walkeep'), 'fetch', ...options];
  return (name: string) => [...program, archive, name, target];
};
const packageCopy = copyPackage();
const prefetching = fetch(archives.none, `--prefetch=${AHEAD}`);

interface Case {
  title: string;
  command(name: string): string[];
  /** What the project promises for it, ms, where cp takes 15 and node alone 30. */
  bar?: number;
}
const CP = 'cp';
const NODE = 'node -e 0';
const AT_HAND = `fetch --prefetch ${AHEAD}, in the spool`;
const cases: Case[] = [
  { title: CP, command: (name) => ['cp', join(archives.none, name), target] },
  { title: NODE, command: () => [node, '-e', '0'] },
  { title: 'fetch', command: fetch(archives.none), bar: 110 },
  { title: 'fetch, gz', command: fetch(archives.gzip), bar: 110 },
  { title: 'fetch, lz4', command: fetch(archives.lz4), bar: 110 },
  { title: AT_HAND, command: prefetching, bar: 60 },
  { title: 'fetch --no-verify', command: fetch(archives.none, '--no-verify') },
];
for (const [title, repository] of [
  ['pgBackRest archive-get', plainRepository],
  ['pgBackRest archive-get, gz', gzRepository],
] as const) {
  if (repository) cases.push({ title, command: (name) => repository.get(dataDir, name, target) });
}

const served = join(dataDir, target);
/** Runs a case for one segment. @throws if what it served is not the original */
function run({ title, command }: Case, name: string): Timed {
  const result = timed(command(name), dataDir);
  if (title !== NODE) {
    if (!readFileSync(served).equals(wanted.get(name) as Buffer)) {
      throw new Error(`${title} served another file than ${name}`);
    }
    rmSync(served);
  }
  return result;
}

/** PostgreSQL keeps the segment that it restored last, and removes the one before that later. */
function leaveBehind(last: string, before: string | undefined): void {
  const path = join(dataDir, 'pg_wal', last);
  writeFileSync(path, wanted.get(last) as Buffer);
  giveToServer(path);
  if (before !== undefined) rmSync(join(dataDir, 'pg_wal', before), { force: true });
}

const inSpool = (name: string): boolean =>
  existsSync(spool) && readdirSync(spool).some((entry) => entry.startsWith(`${name}-`));
/** Until what was ordered is there: what reads it must not be in the way of the next command. */
const spoolFilled = (next: number) =>
  waitFor(() => names.slice(next, next + AHEAD).every(inSpool), { what: 'the spool to be filled' });

const results = new Map<string, Timed[]>(cases.map(({ title }) => [title, []]));
timed(prefetching(names[0] as string), dataDir);
rmSync(served);
for (let round = 1; round <= ROUNDS; round += 1) {
  const name = names[round] as string;
  leaveBehind(names[round - 1] as string, names[round - 2]);
  await spoolFilled(round);
  for (let i = 0; i < cases.length; i += 1) {
    const one = cases[(i + round) % cases.length] as Case;
    results.get(one.title)?.push(run(one, name));
    if (one.title !== AT_HAND) continue;
    if (inSpool(name)) throw new Error(`${name} was not taken from the spool`);
    await spoolFilled(round + 1);
  }
}
// Without an order what reads ahead ends.
rmSync(join(spool, 'order.json'));
await waitFor(() => !existsSync(spool), { what: 'the reader to end' });

const times = (title: string) => (results.get(title) as Timed[]).map(({ ms }) => ms);
const base = times(CP);
const rows = cases.map(({ title, bar }) => {
  return [
    title,
    median(times(title)).toFixed(1),
    title === CP ? '1.00' : ratioText(times(title), base),
    median((results.get(title) as Timed[]).map(({ cpuMs }) => cpuMs)).toFixed(0),
    bar === undefined ? '' : String(bar),
  ];
});
print(
  `One 16 MB segment, one process, ${ROUNDS} rounds`,
  ['command', 'ms', 'ratio to cp [95 %]', 'CPU ms', 'bar ms'],
  rows,
);
if (!plainRepository) process.stdout.write('pgBackRest is not installed: not compared with.\n');
saveResult('fetch', Object.fromEntries(results));
process.exit(0);
