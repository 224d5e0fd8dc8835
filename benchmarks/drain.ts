/**
 * A queue of segments behind a relay of 50 MB/s, which runs in a process of its own: `walkeep ship
 * --once -Z none` and, through the same relay, as many PUTs of the same bytes by node:http at once,
 * neither signed nor checked, in turn.
 */
import { spawn } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { loadavg } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { environmentOf, openStore } from '../test/store/s3/stores.js';
import { FaultProxy } from '../test/support/fault-proxy.js';
import { Rgw, RgwServers } from '../test/support/rgw.js';
import { killAtEnd, packageRoot } from '../test/support/scratch.js';
import { print, ratioText, requireRgw, saveResult, serverScratch } from './report.js';
import { median } from './statistics.js';
import { createSource, updateAtRandom } from './wal-source.js';

const ROUNDS = Number(process.env.WALKEEP_BENCH_ROUNDS ?? 5);
const SEGMENTS = Number(process.env.WALKEEP_BENCH_SEGMENTS ?? 24);
const ROWS = 300_000;
const BYTES_PER_SECOND = 50e6;
const JOBS = [2, 4];

const [target] = process.argv.slice(2);
if (target) {
  const relay = await FaultProxy.listen({ target, bytesPerSecond: BYTES_PER_SECOND });
  process.stdout.write(`${relay.url}\n`);
  // Until it is killed.
  await new Promise(() => {});
}
requireRgw();

const server = await createSource(ROWS);
const names = await updateAtRandom(server, ROWS, SEGMENTS);
const root = serverScratch('drain');
const archive = join(root, 'archive');
mkdirSync(archive);
for (const name of names) copyFileSync(join(server.archiveDir, name), join(archive, name));
const megabytes = (names.length * server.segmentSize) / 1e6;
await server.destroy();
const body = readFileSync(join(archive, names[0] as string));

const servers = await RgwServers.start();
const rgw = new Rgw(servers.facts);
const relay = spawn(process.execPath, [fileURLToPath(import.meta.url), rgw.facts.http], {
  stdio: ['ignore', 'pipe', 'inherit'],
});
killAtEnd(relay);
const url = new URL(
  await new Promise<string>((resolve) => relay.stdout.once('data', (text) => resolve(`${text}`))),
);

async function ship(bucket: string, jobs: number): Promise<void> {
  const place = `s3://${bucket}/shop?endpoint=${url.origin}`;
  const state = mkdtempSync(join(root, 'state-'));
  const args = ['ship', '--once', '-Z', 'none', '-j', `${jobs}`, '--state', state, archive, place];
  const child = spawn(join(packageRoot, 'bin', 'walkeep'), args, {
    env: { PATH: process.env.PATH, HOME: '/', ...environmentOf(rgw.owner) },
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  killAtEnd(child);
  const code = await new Promise((resolve) => child.once('exit', resolve));
  if (code !== 0) throw new Error(`walkeep ship ended with ${code}`);
}

async function put(bucket: string, jobs: number): Promise<void> {
  const agent = new Agent({ keepAlive: true });
  const one = (name: string) =>
    new Promise<void>((resolve, reject) => {
      const call = request({
        ...{ hostname: url.hostname, port: url.port, method: 'PUT', agent },
        path: `/${bucket}/${name}`,
        headers: { 'content-length': body.length },
      });
      call.once('error', reject).once('response', (answer) => {
        answer.resume().once('end', resolve);
        if (answer.statusCode !== 200) reject(new Error(`the gateway says ${answer.statusCode}`));
      });
      call.end(body);
    });
  const left = [...names];
  const work = async () => {
    for (let name = left.shift(); name !== undefined; name = left.shift()) await one(name);
  };
  await Promise.all(Array.from({ length: jobs }, work));
  agent.destroy();
}

/** Seconds, in a bucket of its own; the gateway keeps all in memory. */
async function measured(run: (bucket: string) => Promise<void>): Promise<number> {
  const bucket = await rgw.createBucket();
  await rgw.allowAnyone(bucket, ['PutObject']);
  const began = performance.now();
  await run(bucket);
  const seconds = (performance.now() - began) / 1000;
  await using store = openStore(rgw, bucket);
  const stored: string[] = [];
  for await (const { key } of store.list('')) stored.push(key);
  const count = names.filter((name) => stored.some((key) => key.endsWith(name))).length;
  if (count !== names.length) throw new Error(`${count} of ${names.length} are there`);
  await store.remove(stored);
  return seconds;
}

const results: Record<string, { ours: number[]; plain: number[] }> = {};
for (let round = 0; round < ROUNDS; round += 1) {
  for (const jobs of JOBS) {
    results[jobs] ??= { ours: [], plain: [] };
    const { ours, plain } = results[jobs];
    const walkeep = async () => void ours.push(await measured((b) => ship(b, jobs)));
    const other = async () => void plain.push(await measured((b) => put(b, jobs)));
    for (const one of round % 2 === 0 ? [walkeep, other] : [other, walkeep]) await one();
  }
}
const rows = Object.entries(results).map(([jobs, { ours, plain }]) => {
  const speed = (seconds: readonly number[]) => (megabytes / median(seconds)).toFixed(1);
  return [jobs, speed(ours), speed(plain), ratioText(plain, ours)];
});
print(
  `${names.length} segments of 16 MB through a relay of 50 MB/s, ${ROUNDS} rounds, load ${loadavg()[0]?.toFixed(1)}`,
  ['jobs', 'walkeep MB/s', 'plain PUTs MB/s', 'ratio [95 %]'],
  rows,
);
saveResult('drain', results);
relay.kill();
await servers.stop();
process.exit(0);
