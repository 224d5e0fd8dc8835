import { createHash, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { get as getTls } from 'node:https';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { CertificateAuthority } from './certificates.js';
import { type Fault, FaultProxy, type FaultProxyOptions } from './fault-proxy.js';
import { scratchDir } from './scratch.js';

const BODY = randomBytes(300_000);
const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

/** Bodies that arrived whole at the store, by their path. */
const stored = new Map<string, Buffer>();
const store = createServer(async (request, response) => {
  const parts: Buffer[] = [];
  try {
    for await (const part of request) parts.push(part as Buffer);
  } catch {
    return;
  }
  const path = request.url as string;
  if (request.method === 'PUT') {
    stored.set(path, Buffer.concat(parts));
    response.writeHead(200, { 'X-Own': 'as it Was', 'Content-Length': 0 }).end();
    return;
  }
  const body = path.startsWith('/echo') ? Buffer.from(request.rawHeaders.join('\n')) : BODY;
  response.writeHead(200, { 'Content-Length': body.length }).end(body);
});
let target = '';

beforeAll(async () => {
  await new Promise<void>((resolve) => store.listen(0, '127.0.0.1', resolve));
  target = `http://127.0.0.1:${(store.address() as AddressInfo).port}`;
});
afterAll(() => new Promise((resolve) => store.close(resolve)));

const through = (options: Partial<FaultProxyOptions> = {}) =>
  FaultProxy.listen({ target, ...options });
const only = (fault: Fault) => ({ script: () => fault });
const put = (url: string, path: string, signal?: AbortSignal) =>
  fetch(url + path, { method: 'PUT', body: BODY, ...(signal && { signal }) });
const bytes = async (response: Response) => Buffer.from(await response.arrayBuffer());

test('what it does not spoil passes byte for byte, with its headers as they were', async () => {
  await using proxy = await through();
  const answer = await put(proxy.url, '/plain');
  expect([answer.status, answer.headers.get('x-own')]).toEqual([200, 'as it Was']);
  expect(stored.get('/plain')?.equals(BODY)).toBe(true);
  expect((await bytes(await fetch(`${proxy.url}/get`))).equals(BODY)).toBe(true);
  const host = new URL(proxy.url).host;
  expect(
    await (await fetch(`${proxy.url}/echo?a=%2F`, { headers: { 'X-a': '1' } })).text(),
  ).toContain(host);
  expect(proxy.seen).toMatchObject([
    { method: 'PUT', path: '/plain', attempt: 1, size: BODY.length, status: 200 },
    { method: 'GET', path: '/get', attempt: 1, size: 0, status: 200 },
    { method: 'GET', path: '/echo?a=%2F', status: 200 },
  ]);
});

describe('a fault', () => {
  test('slow-down: the store does not see the request', async () => {
    await using proxy = await through(only('slow-down'));
    const answer = await put(proxy.url, '/slow');
    expect([answer.status, await answer.text()]).toEqual([
      503,
      expect.stringContaining('SlowDown'),
    ]);
    expect(stored.has('/slow')).toBe(false);
  });

  test('reset-after-send: the store has done it, and nobody hears of it', async () => {
    await using proxy = await through(only('reset-after-send'));
    await expect(put(proxy.url, '/reset')).rejects.toThrow();
    expect(stored.get('/reset')?.equals(BODY)).toBe(true);
    expect(proxy.seen[0]).toMatchObject({ fault: 'reset-after-send', status: 200 });
  });

  test('truncate: half of a body arrives nowhere as a whole one', async () => {
    await using proxy = await through(only('truncate'));
    await expect(put(proxy.url, '/half')).rejects.toThrow();
    expect(stored.has('/half')).toBe(false);
    await expect(fetch(`${proxy.url}/get`).then(bytes)).rejects.toThrow();
  });

  test('flip: one byte is another', async () => {
    await using proxy = await through(only('flip'));
    await put(proxy.url, '/flip');
    const there = stored.get('/flip') as Buffer;
    const different = (a: Buffer) => a.filter((byte, i) => byte !== BODY[i]).length;
    expect([there.length, different(there)]).toEqual([BODY.length, 1]);
    expect(different(await bytes(await fetch(`${proxy.url}/get`)))).toBe(1);
  });

  test('stall: it comes, but late; who gives up frees it', async () => {
    await using proxy = await through({ ...only('stall'), stallMs: 50 });
    expect((await put(proxy.url, '/late')).status).toBe(200);
    expect(proxy.seen[0]?.ms).toBeGreaterThanOrEqual(49);
    proxy.options.stallMs = 1e9;
    const abort = new AbortController();
    const one = fetch(`${proxy.url}/get`, abort);
    await expect.poll(() => proxy.seen.length).toBe(2);
    abort.abort();
    await expect(one).rejects.toThrow();
    await expect.poll(() => proxy.seen.every(({ ms }) => ms > 0)).toBe(true);
  });

  test('who goes while he is answered is answered', async () => {
    await using proxy = await through({ latencyMs: 500 });
    const abort = new AbortController();
    const one = put(proxy.url, '/gone', abort.signal).catch(() => {});
    await expect.poll(() => proxy.seen[0]?.status, { timeout: 20_000 }).toBe(200);
    abort.abort();
    await one;
    await expect.poll(() => proxy.seen[0]?.ms, { timeout: 20_000 }).toBeGreaterThan(0);
  });

  test('away: nobody is there until it comes back', async () => {
    await using proxy = await through();
    await fetch(`${proxy.url}/get`).then(bytes);
    proxy.away = true;
    await expect(fetch(`${proxy.url}/get`)).rejects.toThrow();
    await expect(fetch(`${proxy.url}/get`)).rejects.toThrow();
    proxy.away = false;
    expect((await fetch(`${proxy.url}/get`)).status).toBe(200);
  });
});

test('the same seed gives the same faults to the same questions, in any order', async () => {
  const chances = { 'slow-down': 0.2, 'reset-after-send': 0.2, flip: 0.1 };
  const paths = Array.from({ length: 60 }, (_, i) => `/seeded/${i}`);
  const run = async (seed: number, order: string[]) => {
    await using proxy = await through({ seed, chances });
    await Promise.all(order.map((path) => fetch(proxy.url + path).catch(() => {})));
    await Promise.all(order.map((path) => fetch(proxy.url + path).catch(() => {})));
    const known = proxy.seen.map((s) => `${s.path} ${s.attempt} ${s.fault}`);
    return { known: known.sort(), faults: proxy.faults };
  };
  const first = await run(7, paths);
  expect((await run(7, [...paths].reverse())).known).toEqual(first.known);
  expect((await run(8, paths)).known).not.toEqual(first.known);
  const all = Object.values(first.faults).reduce((sum, count) => sum + count, 0);
  expect(all).toBeGreaterThan(35);
  expect(all).toBeLessThan(85);
});

test('a narrow line takes its time, for all connections together', async () => {
  await using proxy = await through({ bytesPerSecond: 10 * BODY.length });
  const began = performance.now();
  await Promise.all(['/n1', '/n2', '/n3'].map((path) => put(proxy.url, path)));
  // A tenth of a second for each, but for what may go at once after a rest.
  expect(performance.now() - began).toBeGreaterThan(240);
});

test('the clock of the store may be ahead', async () => {
  await using proxy = await through({ skewMs: 3_600_000 });
  const date = (await fetch(`${proxy.url}/get`)).headers.get('date') as string;
  const ahead = Date.parse(date) - Date.now();
  expect(ahead).toBeGreaterThan(3_500_000);
  expect(ahead).toBeLessThan(3_700_000);
});

test('clients may speak TLS with it', async () => {
  const ca = await CertificateAuthority.create(scratchDir('ca'));
  const tls = await ca.issue('server', ['IP:127.0.0.1']);
  await using proxy = await through({ tls });
  const got = await new Promise<Buffer>((resolve, reject) => {
    getTls(`${proxy.url}/get`, { ca: readFileSync(ca.cert) }, async (response) => {
      const parts: Buffer[] = [];
      for await (const part of response) parts.push(part as Buffer);
      resolve(Buffer.concat(parts));
    }).on('error', reject);
  });
  expect(sha256(got)).toBe(sha256(BODY));
});
