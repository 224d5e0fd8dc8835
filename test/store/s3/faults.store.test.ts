import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { describe, expect, it } from 'vitest';
import { contentOf } from '../../../src/store/content.js';
import { FaultProxy } from '../../support/fault-proxy.js';
import { sharedRgw } from '../../support/rgw-setup.js';
import { killAtEnd, packageRoot } from '../../support/scratch.js';
import { bytesOf, environmentOf, openStore } from './stores.js';

const rgw = sharedRgw();
/** All of it: `WALKEEP_FAULTS=500` objects of 16 MiB with stalls of 30 s; minutes. */
const FULL = Number(process.env.WALKEEP_FAULTS ?? 0);
const OBJECTS = FULL || 60;
const SIZE = FULL ? 16 * 2 ** 20 : 2 ** 20;
const STALL_MS = FULL ? 30_000 : 300;
/** Drawn by path, so that buckets have names that stay: each run has the same faults. */
const CHANCES = { 'slow-down': 0.1, 'reset-after-send': 0.1, stall: 0.1, truncate: 0.1 };

/** What the child says of an object, and at its end of itself. */
interface Said {
  key?: string;
  sha256: string;
  created: boolean;
  ms: number;
  error?: string;
  /** Largest so far, in bytes. */
  rss: number;
}

describe.skipIf(!rgw)('through a proxy that spoils four requests of ten', () => {
  it(`${OBJECTS} objects arrive, none twice`, { timeout: 3_600_000 }, async () => {
    if (!rgw) return;
    const bucket = await rgw.createBucket({ name: 'faults-create' });
    await using proxy = await FaultProxy.listen({
      target: rgw.facts.http,
      chances: CHANCES,
      stallMs: STALL_MS,
    });
    const place = `s3://${bucket}?endpoint=${proxy.url}`;
    const child = spawn(
      process.execPath,
      ['test/support/store-child.mjs', place, String(OBJECTS), String(SIZE)],
      {
        cwd: packageRoot,
        env: { PATH: process.env.PATH, ...environmentOf(rgw.owner) },
        stdio: ['ignore', 'pipe', 'inherit'],
      },
    );
    killAtEnd(child);
    const direct = openStore(rgw, bucket);
    const said: Said[] = [];
    for await (const line of linesOf(child)) {
      const one = JSON.parse(line) as Said;
      said.push(one);
      if (one.error !== undefined || one.key === undefined) continue;
      const bytes = (await bytesOf(direct, one.key)) as Buffer;
      expect(contentOf(bytes).sha256, one.key).toBe(one.sha256);
      // A gateway that keeps its objects in memory has no room for all of them.
      await direct.remove([one.key]);
    }
    await direct.close();

    const objects = said.filter(({ key }) => key !== undefined);
    expect(objects.filter(({ error }) => error !== undefined)).toEqual([]);
    expect(objects).toHaveLength(OBJECTS);
    expect(objects.every(({ created }) => created)).toBe(true);
    // The store said "created" once for each, whoever heard of it.
    // Without what shows that the service creates only what is absent, which is no object.
    const puts = proxy.seen.filter(
      ({ method, path }) => method === 'PUT' && !path.includes('.walkeep-store'),
    );
    const stored = puts.filter(({ status }) => status === 200);
    expect(stored.map(({ path }) => path).sort()).toEqual(
      [...new Set(puts.map(({ path }) => path))].sort(),
    );
    expect(stored).toHaveLength(OBJECTS);
    expect(Object.keys(proxy.faults).sort()).toEqual(Object.keys(CHANCES).sort());
    const longestAttempt = Math.max(...proxy.seen.map(({ ms }) => ms));
    const longestObject = Math.max(...objects.map(({ ms }) => ms));
    const rss = Math.max(...said.map((one) => one.rss));
    expect(longestAttempt).toBeLessThan(35_000);
    expect(longestObject).toBeLessThan(300_000);
    expect(rss).toBeLessThan(150 * 2 ** 20);
    if (FULL) {
      const figures = {
        ...{ objects: OBJECTS, requests: proxy.seen.length, faults: proxy.faults },
        ...{ longestAttempt, longestObject, rssMiB: rss / 2 ** 20 },
      };
      process.stderr.write(`${JSON.stringify(figures)}\n`);
    }
  });

  it('what is read is whole, or it is told that it is not', async () => {
    if (!rgw) return;
    const bucket = await rgw.createBucket({ name: 'faults-read' });
    const direct = openStore(rgw, bucket);
    const bodies = Array.from({ length: 40 }, (_, i) => Buffer.alloc(300_000, `body ${i}`));
    await Promise.all(bodies.map((body, i) => direct.create(`k/${i}`, contentOf(body))));
    await using proxy = await FaultProxy.listen({
      target: rgw.facts.http,
      chances: { ...CHANCES, flip: 0.2 },
      stallMs: 100,
    });
    const store = openStore(rgw, bucket, { endpoint: proxy.url });
    const outcomes = await Promise.all(
      bodies.map((body, i) =>
        bytesOf(store, `k/${i}`).then(
          (bytes) => {
            expect(bytes?.equals(body)).toBe(true);
            return 'whole';
          },
          (error) => error.code as string,
        ),
      ),
    );
    const allowed = ['whole', 'WK_STORE_UNCERTAIN', 'WK_CORRUPT_OBJECT'];
    expect(allowed).toEqual(expect.arrayContaining([...new Set(outcomes)]));
    expect(new Set(outcomes).size).toBe(3);
    await Promise.all([store.close(), direct.close()]);
  });

  it('what arrives with another byte in it is not stored', async () => {
    if (!rgw) return;
    const bucket = await rgw.createBucket({ name: 'faults-flip' });
    await using proxy = await FaultProxy.listen({
      target: rgw.facts.http,
      script: ({ method, attempt }) => (method === 'PUT' && attempt <= 2 ? 'flip' : undefined),
    });
    const store = openStore(rgw, bucket, { endpoint: proxy.url });
    const body = Buffer.alloc(100_000, 'x');
    expect(await store.create('flipped', contentOf(body))).toEqual({ created: true });
    const puts = proxy.seen.filter(
      ({ method, path }) => method === 'PUT' && path.endsWith('/flipped'),
    );
    expect(puts.map(({ status }) => status)).toEqual([400, 400, 200]);
    expect((await bytesOf(store, 'flipped'))?.equals(body)).toBe(true);
    await store.close();
  });

  it('a listing that breaks off goes on or fails, and never ends early', async () => {
    if (!rgw) return;
    const bucket = await rgw.createBucket({ name: 'faults-list' });
    const direct = openStore(rgw, bucket);
    const keys = Array.from({ length: 1200 }, (_, i) => `l/${String(i).padStart(5, '0')}`);
    await Promise.all(keys.map((key) => direct.create(key, contentOf(Buffer.from(key)))));
    await using proxy = await FaultProxy.listen({ target: rgw.facts.http, stallMs: 100 });
    for (let seed = 1; seed <= 10; seed++) {
      proxy.options = { ...proxy.options, seed, chances: CHANCES };
      const store = openStore(rgw, bucket, { endpoint: proxy.url });
      const listed: string[] = [];
      for await (const { key } of store.list('l/')) listed.push(key);
      expect(listed).toEqual(keys);
      await store.close();
    }
    expect(Object.keys(proxy.faults).length).toBeGreaterThan(2);
    await direct.close();
  });

  it('a clock that is wrong costs one more request', async () => {
    if (!rgw) return;
    const bucket = await rgw.createBucket({ name: 'faults-clock' });
    const ahead = 3_600_000;
    const store = openStore(rgw, bucket, { now: () => Date.now() + ahead });
    expect(await store.create('k', contentOf(Buffer.from('x')))).toEqual({ created: true });
    expect((await bytesOf(store, 'k'))?.toString()).toBe('x');
    const { clockOffset } = await store.probe();
    expect(Math.abs((clockOffset as number) + ahead)).toBeLessThan(60_000);
    await store.close();
  });
});

async function* linesOf(child: ChildProcess): AsyncGenerator<string> {
  const ended = once(child, 'exit');
  yield* createInterface({ input: child.stdout as NodeJS.ReadableStream });
  expect(await ended).toEqual([0, null]);
}
