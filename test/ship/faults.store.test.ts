import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { describe, expect, it } from 'vitest';
import { decodeBytes } from '../../src/codec/stages.js';
import { segmentFileName } from '../../src/wal/file-name.js';
import { bytesOf, environmentOf, openStore } from '../store/s3/stores.js';
import { CertificateAuthority } from '../support/certificates.js';
import { FaultProxy } from '../support/fault-proxy.js';
import { sharedRgw } from '../support/rgw-setup.js';
import { killAtEnd, packageRoot, scratchDir } from '../support/scratch.js';
import { makeWal } from '../wal/synthetic.js';

const rgw = sharedRgw();
/**
 * All of it: `WALKEEP_FAULTS=500` segments with stalls of 30 s; half an hour. `WALKEEP_STALL_MS` makes
 * them shorter, for memory alone, `WALKEEP_SHIP_CODEC` compresses with another codec.
 */
const FULL = Number(process.env.WALKEEP_FAULTS ?? 0);
const SEGMENTS = FULL || 24;
const STALL_MS = Number(process.env.WALKEEP_STALL_MS ?? (FULL ? 30_000 : 300));
const CODEC = process.env.WALKEEP_SHIP_CODEC ?? 'gzip:1';
const SIZE = 16 * 2 ** 20;
/** Drawn by path, so that the bucket has a name that stays: each run has the same faults. */
const CHANCES = { 'slow-down': 0.1, 'reset-after-send': 0.1, stall: 0.1, truncate: 0.1 };
/** Segments that are there and not shipped, at most. */
const BACKLOG = 6;

/** One segment whose records compress to half. */
function segmentOf(number: bigint): Buffer {
  const records = Array.from({ length: Math.ceil(SIZE / 16_000) }, (_, i) => {
    const body = Buffer.alloc(16_000, `record ${i} of ${number} `);
    randomBytes(8000).copy(body);
    return { body };
  });
  const start = number * BigInt(SIZE);
  return makeWal(records, { segmentSize: SIZE, start }).bytes.subarray(0, SIZE);
}

const peakOf = (pid: number) =>
  Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1]) * 1024;

describe.skipIf(!rgw)('walkeep ship through a proxy that spoils four requests of ten', () => {
  it(`${SEGMENTS} segments arrive, none twice`, { timeout: 7_200_000 }, async () => {
    const bucket = await rgw!.createBucket({ name: 'faults-ship' });
    // Over TLS, which holds what it was given to send once more.
    const authority = await CertificateAuthority.create(scratchDir('ca'));
    await using proxy = await FaultProxy.listen({
      target: rgw!.facts.http,
      tls: await authority.issue('proxy', ['IP:127.0.0.1']),
      chances: CHANCES,
      stallMs: STALL_MS,
    });
    const directory = scratchDir('archive');
    const begun = new Map<string, number>();
    const add = () => {
      const number = BigInt(begun.size + 1);
      const name = segmentFileName(1, number, SIZE);
      const path = join(directory, name);
      writeFileSync(`${path}.tmp`, segmentOf(number));
      renameSync(`${path}.tmp`, path);
      begun.set(name, performance.now());
    };
    while (begun.size < Math.min(BACKLOG, SEGMENTS)) add();

    const place = `s3://${bucket}?endpoint=${proxy.url}&ca=${authority.cert}`;
    const args = ['ship', '--json', '-Z', CODEC, directory, place];
    const child = spawn(join(packageRoot, 'bin', 'walkeep'), args, {
      env: { PATH: process.env.PATH, ...environmentOf(rgw!.owner) },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    killAtEnd(child);
    const ended = once(child, 'exit');
    const direct = openStore(rgw!, bucket);
    const outcomes: string[] = [];
    let longest = 0;
    let peak = 0;
    for await (const line of createInterface({ input: child.stdout })) {
      const { type, name, key, outcome } = JSON.parse(line);
      if (type !== 'shipped') continue;
      outcomes.push(outcome);
      longest = Math.max(longest, performance.now() - (begun.get(name) as number));
      peak = Math.max(peak, peakOf(child.pid as number));
      const stored = (await bytesOf(direct, key)) as Buffer;
      const { content } = await decodeBytes(stored, { name });
      expect(readFileSync(join(directory, name)).equals(content), name).toBe(true);
      // A gateway that keeps its objects in memory has no room for all of them.
      await direct.remove([key]);
      rmSync(join(directory, name));
      if (begun.size < SEGMENTS) add();
      if (outcomes.length === SEGMENTS) child.kill('SIGTERM');
    }
    await direct.close();
    expect(await ended).toEqual([0, null]);

    expect(outcomes).toEqual(Array(SEGMENTS).fill('stored'));
    // The store took each once, whoever heard of it.
    const stored = proxy.seen.filter(
      ({ method, path, status }) => method === 'PUT' && path.includes('/wal/') && status === 200,
    );
    expect(stored).toHaveLength(SEGMENTS);
    expect(new Set(stored.map(({ path }) => path)).size).toBe(SEGMENTS);
    expect(Object.keys(proxy.faults).sort()).toEqual(Object.keys(CHANCES).sort());
    const longestAttempt = Math.max(...proxy.seen.map(({ ms }) => ms));
    expect(longestAttempt).toBeLessThan(35_000);
    expect(longest).toBeLessThan(300_000);
    expect(peak).toBeLessThan(150_000_000);
    if (FULL) {
      const figures = {
        ...{ segments: SEGMENTS, requests: proxy.seen.length, faults: proxy.faults },
        ...{ longestAttempt, longest, peak },
      };
      process.stderr.write(`${JSON.stringify(figures)}\n`);
    }
  });
});
