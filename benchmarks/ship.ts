/**
 * Shipping to an object store over TLS: `walkeep ship --once` and pgBackRest's archive-push with
 * archive-async, two at a time each, the same segments of real WAL, codec and level, in turn, each
 * time into a bucket of its own.
 */
import { spawn } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { join } from 'node:path';
import { environmentOf, openStore } from '../test/store/s3/stores.js';
import { Rgw, RgwServers } from '../test/support/rgw.js';
import { giveToServer, killAtEnd, packageRoot, serverUser } from '../test/support/scratch.js';
import { PgBackRest } from './pgbackrest.js';
import { print, ratioText, requireRgw, saveResult, serverScratch } from './report.js';
import { median } from './statistics.js';
import { createSource, updateAtRandom } from './wal-source.js';

const ROUNDS = Number(process.env.WALKEEP_BENCH_ROUNDS ?? 7);
const SEGMENTS = Number(process.env.WALKEEP_BENCH_SEGMENTS ?? 30);
const ROWS = 300_000;
/** What both are told of each codec. */
const CODECS = [
  { title: 'none', ours: 'none', theirs: 'none', level: '' },
  { title: 'gzip:1', ours: 'gzip:1', theirs: 'gz', level: '1' },
  { title: 'lz4:1', ours: 'lz4:1', theirs: 'lz4', level: '1' },
  { title: 'zstd:3', ours: 'zstd:3', theirs: 'zst', level: '3' },
] as const;
const wanted = process.env.WALKEEP_BENCH_CASE ?? '';
const codecs = CODECS.filter(({ title }) => title.includes(wanted));

requireRgw();

const server = await createSource(ROWS);
const names = await updateAtRandom(server, ROWS, SEGMENTS);
const root = serverScratch('ship');
const directory = (path: string): string => {
  mkdirSync(path);
  giveToServer(path);
  return path;
};
const file = (from: string, to: string): void => {
  copyFileSync(from, to);
  giveToServer(to);
};
/** What pgBackRest sees of a server, and what is shipped. */
const dataDir = directory(join(root, 'data'));
for (const name of ['global', 'pg_wal', 'pg_wal/archive_status']) directory(join(dataDir, name));
for (const name of ['PG_VERSION', 'global/pg_control']) {
  file(join(server.dataDir, name), join(dataDir, name));
}
const archive = directory(join(root, 'archive'));
for (const name of names) {
  file(join(server.archiveDir, name), join(archive, name));
  file(join(server.archiveDir, name), join(dataDir, 'pg_wal', name));
  const ready = join(dataDir, 'pg_wal', 'archive_status', `${name}.ready`);
  writeFileSync(ready, '');
  giveToServer(ready);
}
const segments = names.map((name) => join(dataDir, 'pg_wal', name));
const megabytes = (names.length * server.segmentSize) / 1e6;
await server.destroy();

const servers = await RgwServers.start();
const rgw = new Rgw(servers.facts);
const { port } = new URL(rgw.facts.https);
const ca = join(root, 'ca.pem');
file(rgw.facts.ca, ca);

interface Run {
  seconds: number;
  /** Of walkeep's process; those of pgBackRest leave the one that is started. */
  cpuSeconds?: number;
  peakMB?: number;
}

async function ship(compression: string, bucket: string): Promise<Run> {
  const place = `s3://${bucket}/shop?endpoint=${rgw.facts.https}&ca=${ca}`;
  const state = directory(mkdtempSync(join(root, 'state-')).concat('-own'));
  const args = ['ship', '--once', '-Z', compression, '--state', state, archive, place];
  const began = performance.now();
  const child = spawn(join(packageRoot, 'bin', 'walkeep'), args, {
    ...serverUser,
    cwd: '/',
    env: { PATH: process.env.PATH, HOME: '/', ...environmentOf(rgw.owner) },
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  killAtEnd(child);
  const seen = { cpu: 0, peak: 0 };
  const look = setInterval(() => Object.assign(seen, usage(child.pid as number) ?? {}), 20);
  const code = await new Promise((resolve) => child.once('exit', resolve));
  clearInterval(look);
  if (code !== 0) throw new Error(`walkeep ship ended with ${code}`);
  const seconds = (performance.now() - began) / 1000;
  return { seconds, cpuSeconds: seen.cpu, peakMB: seen.peak };
}

/** Undefined once it has ended. */
function usage(pid: number): { cpu: number; peak: number } | undefined {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    const times = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
    const peak = Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1]) * 1.024e-3;
    // What has ended and was not waited for yet has none.
    if (Number.isNaN(peak)) return undefined;
    return { cpu: (Number(times[11]) + Number(times[12])) / 100, peak };
  } catch {
    return undefined;
  }
}

let repositories = 0;
async function push(theirs: 'none' | 'gz' | 'lz4' | 'zst', level: string, bucket: string) {
  repositories += 1;
  const repository = PgBackRest.create(join(root, `repo${repositories}`), dataDir, theirs, {
    ...(level && { 'compress-level': level }),
    'archive-async': 'y',
    'process-max': '2',
    'repo1-type': 's3',
    'repo1-path': '/shop',
    'repo1-s3-bucket': bucket,
    'repo1-s3-endpoint': 's3.localhost',
    'repo1-s3-region': 'us-east-1',
    'repo1-s3-uri-style': 'path',
    'repo1-s3-key': rgw.owner.accessKeyId,
    'repo1-s3-key-secret': rgw.owner.secretAccessKey,
    'repo1-storage-host': 'localhost',
    'repo1-storage-port': port,
    'repo1-storage-ca-file': ca,
  });
  if (!repository) return undefined;
  const began = performance.now();
  await repository.pushAhead(segments);
  return { seconds: (performance.now() - began) / 1000 };
}

/** Runs one in a bucket of its own; the gateway keeps all in memory. */
async function inBucket<T extends Run | undefined>(run: (bucket: string) => Promise<T>) {
  const bucket = await rgw.createBucket();
  const result = await run(bucket);
  await using store = openStore(rgw, bucket);
  const stored: string[] = [];
  for await (const { key } of store.list('')) stored.push(key);
  // Of WAL of a certain size there are indexes, too.
  const segments = stored.filter((key) => !key.includes('/index/'));
  const count = segments.filter((key) => names.some((name) => key.includes(`/${name}`))).length;
  if (result && count !== names.length) throw new Error(`${count} of ${names.length} are there`);
  await store.remove(stored);
  return result;
}

const results: Record<string, { ours: Run[]; theirs: Run[] }> = {};
for (const { title, ours, theirs, level } of codecs) {
  const runs = { ours: [] as Run[], theirs: [] as Run[] };
  results[title] = runs;
  const walkeep = async () => void runs.ours.push(await inBucket((b) => ship(ours, b)));
  const other = async () => {
    const run = await inBucket((b) => push(theirs, level, b));
    if (run) runs.theirs.push(run);
  };
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const one of round % 2 === 0 ? [walkeep, other] : [other, walkeep]) await one();
  }
}

const rows = codecs.map(({ title }) => {
  const { ours, theirs } = results[title] as { ours: Run[]; theirs: Run[] };
  const seconds = (runs: readonly Run[]) => runs.map((run) => run.seconds);
  const speed = (runs: readonly Run[]) => (megabytes / median(seconds(runs))).toFixed(0);
  return [
    title,
    speed(ours),
    theirs.length ? speed(theirs) : '',
    theirs.length ? ratioText(seconds(theirs), seconds(ours)) : '',
    median(ours.map(({ cpuSeconds = 0 }) => (cpuSeconds / megabytes) * 1000)).toFixed(1),
    Math.max(...ours.map(({ peakMB = 0 }) => peakMB)).toFixed(0),
  ];
});
print(
  `${names.length} segments of 16 MB to RGW over TLS, ${ROUNDS} rounds, load ${loadavg()[0]?.toFixed(1)}`,
  ['codec', 'MB/s', 'pgBackRest MB/s', 'ratio [95 %]', 'CPU s/GB', 'peak RSS MB'],
  rows,
);
saveResult('ship', results);
await servers.stop();
process.exit(0);
