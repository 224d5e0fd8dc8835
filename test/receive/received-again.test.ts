import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { Ledger, readLedger } from '../../src/archive/ledger.js';
import { compressFile } from '../../src/codec/codec.js';
import { RewriteError } from '../../src/errors.js';
import { fetchFile } from '../../src/fetch/fetch.js';
import type { Lsn } from '../../src/lsn.js';
import { WalReceiver } from '../../src/receive/receiver.js';
import { type Compression, compressionSuffix } from '../../src/wal/file-name.js';
import { disposer } from '../support/cleanup.js';
import { scratchDir } from '../support/scratch.js';
import { backend, ScriptedServer } from '../support/scripted-server.js';
import { makeWal } from '../wal/synthetic.js';

const MB = 1024 * 1024;
const keep = disposer();
/** Segments 4 to 7; each but the first begins inside a record. */
const records = (fill: number) =>
  Array.from({ length: 1300 }, (_, n) => ({ body: Buffer.alloc(3001, n + fill) }));
const wal = makeWal(records(1), { start: BigInt(4 * MB) });
const N = '000000010000000000000005';
const NEXT = '000000010000000000000006';
/** What was acknowledged of `NEXT`. */
const HELD = 900_000;
const segment = (n: number, length = MB, from = wal) =>
  from.bytes.subarray((n - 4) * MB, (n - 4) * MB + length);

/** What WAL is received as, and what it may be here as. */
const METHODS = ['none', 'gzip', 'lz4'] as const;
type Method = (typeof METHODS)[number];
const FORMS = [...METHODS, 'zstd' as const];

let directory: string;
beforeEach(() => {
  directory = scratchDir('again');
});

/** Stores the first bytes of a segment as a partial. */
async function store(name: string, bytes: Uint8Array, form: Compression = 'none'): Promise<void> {
  const plain = join(directory, `${name}.partial`);
  if (form === 'none') writeFileSync(plain, Buffer.concat([bytes], MB));
  else {
    const source = join(scratchDir('again'), 'source');
    writeFileSync(source, bytes);
    const target = join(directory, `${name}${compressionSuffix(form)}.partial`);
    await compressFile(source, target, bytes.length, { method: form });
  }
}

/** Receives up to `length` bytes of segment `last`, and stops cleanly. */
async function receive(
  method: Method,
  last: number,
  length: number,
  from = wal,
  beforeStop = async () => {},
) {
  const end = last * MB + length;
  const server = keep(
    await ScriptedServer.listen(async (c) => {
      const flushLsn = (from.start + BigInt(from.bytes.length)) as typeof from.start;
      const { lsn } = await c.startStream({ systemId: '77', segmentSizeMb: 1, flushLsn });
      for (let at = Number(lsn); at < end; at += 100_000) {
        const to = Math.min(end, at + 100_000) - 4 * MB;
        c.send(backend.xlogData(BigInt(at), from.bytes.subarray(at - 4 * MB, to)));
      }
      await c.nextOf('c').catch(() => {});
      c.send(backend.copyDone());
      c.close();
    }),
  );
  const receiver = new WalReceiver({
    connection: server.conninfo({ sslmode: 'disable' }),
    ...{ directory, reconnect: false, synchronous: true, checkSyncStandby: false },
    compression: { method },
  });
  const warnings: string[] = [];
  receiver.on('warning', ({ code }) => warnings.push(code));
  const files: string[] = [];
  receiver.on('partial', ({ file }) => files.push(file));
  const stop = new AbortController();
  const ended = receiver.run(stop.signal);
  const flushed = server.connection(0).then((c) => c.waitStatus((r) => r.flush >= BigInt(end)));
  await Promise.race([ended, flushed.then(beforeStop)]).finally(() => stop.abort());
  await ended;
  return { warnings, files };
}

/** What recovery gets of a segment. */
async function fetched(name: string): Promise<Buffer> {
  const target = join(scratchDir('again'), 'target');
  expect(await fetchFile({ places: [directory], name, target })).toMatchObject({ found: true });
  return readFileSync(target);
}

const visible = () => readdirSync(directory).filter((name) => !name.startsWith('.'));

describe('a segment received again from before it, stopped before its end is there', () => {
  const pairs = FORMS.flatMap((a) => METHODS.map((b) => [a, b] as const));

  it.each(pairs)('keeps what it held: held as %s, received with %s', async (held, method) => {
    // The receiver was killed while it compressed the segment before.
    await store(N, segment(5));
    await store(NEXT, segment(6, HELD), held);
    const { warnings } = await receive(method, 6, 200_000);
    expect((await fetched(NEXT)).subarray(0, HELD).equals(segment(6, HELD))).toBe(true);
    expect(warnings).toEqual([]);
    // Whatever comes next.
    for (const form of [...METHODS].reverse()) {
      await receive(form, 6, 300_000);
      expect((await fetched(NEXT)).subarray(0, HELD).equals(segment(6, HELD)), form).toBe(true);
    }
    const { files } = await receive('lz4', 6, HELD + 50_000);
    expect(files).toEqual([`${NEXT}.lz4.partial`]);
    expect((await fetched(NEXT)).subarray(0, HELD + 50_000).equals(segment(6, HELD + 50_000))).toBe(
      true,
    );
    await receive(method, 7, 1000);
    expect((await fetched(NEXT)).equals(segment(6))).toBe(true);
    // Nothing that the complete file has is left beside it.
    expect(visible().filter((name) => name.startsWith(NEXT))).toHaveLength(1);
    expect(readdirSync(directory).filter((name) => name.endsWith('.replaced'))).toEqual([]);
  });

  it.each(FORMS)('is compared with what it held as %s', async (held) => {
    await store(N, segment(5));
    await store(NEXT, segment(6, HELD), held);
    // The same up to a record in the second one.
    const same = wal.lsns.filter((l) => l < BigInt(6 * MB + 400_000)).length;
    const other = makeWal(
      records(1).map((r, n) => (n < same ? r : { body: Buffer.alloc(3001, n + 3) })),
      { start: wal.start },
    );
    await expect(receive('none', 6, 800_000, other)).rejects.toThrow(RewriteError);
    expect((await fetched(NEXT)).subarray(0, HELD).equals(segment(6, HELD))).toBe(true);
    expect(existsSync(join(directory, N))).toBe(true);
  });
});

it('removes what a killed receiver left half compressed, also on its way to a stop', async () => {
  await store(NEXT, segment(6, 1000), 'gzip');
  const left = [`.walkeep-${N}.gz`, `.walkeep-${NEXT}.gz.partial`, `.walkeep-${NEXT}.seed`];
  for (const name of left) writeFileSync(join(directory, name), 'x');
  await receive('gzip', 6, 2000);
  const dotfiles = readdirSync(directory).filter((name) => name.startsWith('.'));
  expect(dotfiles).toEqual(['.walkeep-ledger']);
});

it.each(['gzip', 'lz4'] as const)(
  'does not replace what a push brought meanwhile with less: %s',
  async (method) => {
    await store(NEXT, segment(6, 1000));
    const push = () => store(NEXT, segment(6, HELD), method);
    const { files } = await receive(method, 6, 200_000, wal, push);
    expect(files).toEqual([`${NEXT}.partial`]);
    expect((await fetched(NEXT)).subarray(0, HELD).equals(segment(6, HELD))).toBe(true);
    expect(readdirSync(directory).filter((name) => /walkeep-0/.test(name))).toEqual([]);
    // Together they are one at the next stop.
    expect((await receive(method, 6, 300_000)).files).toEqual([
      `${NEXT}${compressionSuffix(method)}.partial`,
    ]);
    expect((await fetched(NEXT)).subarray(0, HELD).equals(segment(6, HELD))).toBe(true);
  },
);

describe('a complete segment behind one that lost its name', () => {
  beforeEach(async () => {
    await store(N, segment(5));
    writeFileSync(join(directory, NEXT), segment(6));
    await store('000000010000000000000007', segment(7, 1000));
    const ledger = (await Ledger.open(directory, { create: true })) as Ledger;
    const systemId = BigInt(77);
    await ledger.append(
      { type: 'open', systemId, segmentSize: MB, version: '0' },
      { type: 'timeline', timeline: 1, start: BigInt(5 * MB) as Lsn, why: 'first start' },
      { type: 'complete', lsn: BigInt(7 * MB) as Lsn, timeline: 1 },
      { type: 'flushed', lsn: BigInt(7 * MB) as Lsn, timeline: 1 },
    );
    await ledger.close();
    // Not proved: damage that the server has not.
    const spoilt = Buffer.from(segment(5));
    spoilt.fill(0, 500_224, 500_736);
    await store(N, spoilt);
  });

  it('is not told as lost when it comes again', async () => {
    const { warnings } = await receive('gzip', 7, 2000);
    // That of the damaged one.
    expect(warnings).toEqual(['WK_REFILL']);
    expect((await fetched(N)).equals(segment(5))).toBe(true);
    expect((await fetched(NEXT)).equals(segment(6))).toBe(true);
  });

  it('is not put aside for other WAL', async () => {
    const same = wal.lsns.filter((l) => l < BigInt(6 * MB + 400_000)).length;
    const other = makeWal(
      records(1).map((r, n) => (n < same ? r : { body: Buffer.alloc(3001, n + 3) })),
      { start: wal.start },
    );
    await expect(receive('none', 7, 1000, other)).rejects.toThrow(RewriteError);
    expect((await fetched(NEXT)).equals(segment(6))).toBe(true);
  });
});

it('that other programs moved away and that is received again in pieces is no loss', async () => {
  writeFileSync(join(directory, N), segment(5));
  const ledger = (await Ledger.open(directory, { create: true })) as Ledger;
  await ledger.append(
    { type: 'open', systemId: BigInt(77), segmentSize: MB, version: '0' },
    { type: 'timeline', timeline: 1, start: BigInt(5 * MB) as Lsn, why: 'first start' },
    { type: 'complete', lsn: BigInt(7 * MB) as Lsn, timeline: 1 },
    { type: 'flushed', lsn: BigInt(7 * MB) as Lsn, timeline: 1 },
  );
  await ledger.close();
  for (const length of [200_000, 400_000, HELD]) {
    expect(await receive('none', 6, length)).toMatchObject({ warnings: [] });
    expect(visible()).toEqual([N, `${NEXT}.partial`]);
  }
  expect(await receive('none', 7, 1000)).toMatchObject({ warnings: [] });
  expect((await fetched(NEXT)).equals(segment(6))).toBe(true);
  expect((await readLedger(directory))?.again).toEqual([]);
});

describe('a record that is damaged as it is stored', () => {
  const at = Number(wal.lsns.filter((l) => l < BigInt(6 * MB + HELD)).at(-1)) - 6 * MB;
  const last = Number(wal.lsns.filter((l) => l < BigInt(6 * MB + at)).at(-1)) - 6 * MB;
  const earlier = Number(wal.lsns.find((l) => l > BigInt(6 * MB + 300_000))) - 6 * MB;
  /** What of the segment was acknowledged, with a bit flipped. */
  const spoilt = (offset: number, held = at + 1000) => {
    const bytes = Buffer.from(segment(6, held));
    bytes[offset] = bytes[offset]! ^ 0x10;
    return bytes;
  };
  const acknowledge = async (flushed: number) => {
    writeFileSync(join(directory, N), segment(5));
    const ledger = (await Ledger.open(directory, { create: true })) as Ledger;
    await ledger.append(
      { type: 'open', systemId: BigInt(77), segmentSize: MB, version: '0' },
      { type: 'timeline', timeline: 1, start: BigInt(5 * MB) as Lsn, why: 'first start' },
      { type: 'complete', lsn: BigInt(6 * MB) as Lsn, timeline: 1 },
      { type: 'flushed', lsn: BigInt(6 * MB + flushed) as Lsn, timeline: 1 },
    );
    await ledger.close();
  };

  it.each([
    // Nothing proves these before their end comes: the stored one may be the right one.
    ['its length, unfinished', at, at + 1000, []],
    ['its kind, unfinished', at + 16, at + 1000, []],
    ['the place of the one before, unfinished', at + 9, at + 1000, ['WK_STORED_DAMAGE']],
    ['its length, with others behind', earlier + 1, at + 1000, ['WK_STORED_DAMAGE']],
    ['its body, with others behind', earlier + 2000, at + 1000, ['WK_STORED_DAMAGE']],
    ['its checksum, as the last one', last + 21, at, ['WK_STORED_DAMAGE']],
  ])('is replaced by the right one: %s', async (_, offset, held, told) => {
    await acknowledge(held);
    await store(NEXT, spoilt(offset, held));
    const { warnings } = await receive('none', 6, HELD + 20_000);
    expect(warnings).toEqual(told);
    const whole = segment(6, HELD + 20_000);
    expect((await fetched(NEXT)).subarray(0, whole.length).equals(whole)).toBe(true);
  });

  it('leaves all behind it compared', async () => {
    await acknowledge(at);
    const stored = spoilt(earlier + 2000);
    await store(NEXT, stored);
    const same = wal.lsns.filter((l) => l < BigInt(6 * MB + earlier + 60_000)).length;
    const other = makeWal(
      records(1).map((r, n) => (n < same ? r : { body: Buffer.alloc(3001, n + 3) })),
      { start: wal.start },
    );
    await expect(receive('none', 6, 800_000, other)).rejects.toThrow(RewriteError);
    const behind = readFileSync(join(directory, `${NEXT}.partial`)).subarray(earlier + 60_000, at);
    expect(behind.equals(stored.subarray(earlier + 60_000, at))).toBe(true);
  });

  it('is no reason to take other WAL before it', async () => {
    await acknowledge(at);
    const stored = spoilt(earlier + 2000);
    await store(NEXT, stored);
    const same = wal.lsns.filter((l) => l < BigInt(6 * MB + earlier - 60_000)).length;
    const other = makeWal(
      records(1).map((r, n) => (n < same ? r : { body: Buffer.alloc(3001, n + 3) })),
      { start: wal.start },
    );
    await expect(receive('none', 6, 800_000, other)).rejects.toThrow(RewriteError);
    const now = readFileSync(join(directory, `${NEXT}.partial`)).subarray(0, stored.length);
    expect(now.equals(stored)).toBe(true);
  });
});
