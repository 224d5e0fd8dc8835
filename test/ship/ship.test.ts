import {
  copyFileSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { readShipProgress } from '../../src/archive/shipping/read-ship-progress.js';
import { StoreUncertainError } from '../../src/errors.js';
import { ShipSource } from '../../src/ship/source.js';
import { MemoryObjects, MemoryStore } from '../../src/store/memory.js';
import { edit, fixtureArchive, SEGMENT, sampleArchive, writeLedger } from '../support/archives.js';
import { scratchDir } from '../support/scratch.js';
import { waitFor } from '../support/wait.js';
import { contentOf, differences, keysOf, listened, memory, shipOnce } from './shipping.js';

test('ships whole segments, and the unfinished one that nobody writes to', async () => {
  const { directory, names, end } = sampleArchive(4);
  const objects = new MemoryObjects();
  const { result, told } = await shipOnce(directory, [memory(objects)]);
  const hex = end.toString(16).toUpperCase().padStart(16, '0');
  const partial = names[3]!.slice(0, 24);
  expect(keysOf(objects)).toEqual([
    `partial/00000001/${partial}/${hex}`,
    ...names.slice(0, 3).map((name) => `wal/00000001/${name}`),
  ]);
  expect(differences(directory, objects)).toEqual([]);
  expect(result).toMatchObject({
    reason: 'done',
    places: [{ place: 'memory:one', segments: 0, bytes: 0, seconds: 0, held: [] }],
  });
  expect(told('shipped').map(({ name, outcome }) => `${name} ${outcome}`)).toEqual(
    [...names.slice(0, 3), partial].map((name) => `${name} stored`),
  );
  const part = contentOf(objects, hex);
  expect(part.equals(readFileSync(join(directory, names[3]!)).subarray(0, part.length))).toBe(true);
});

test('tells of what each object is', async () => {
  const { directory, names, start } = sampleArchive(2);
  const objects = new MemoryObjects();
  await shipOnce(directory, [memory(objects)], { compression: { method: 'gzip', level: 1 } });
  const [, segment] = objects.entries().find(([key]) => key.endsWith(names[0]!))!;
  expect(segment.meta).toMatchObject({
    'wk-stages': 'gzip',
    'wk-size': `${SEGMENT}`,
    'wk-start': `0/${start.toString(16).toUpperCase()}`,
    'wk-end': `0/${(start + BigInt(SEGMENT)).toString(16).toUpperCase()}`,
    'wk-sha256': expect.stringMatching(/^[0-9a-f]{64}$/),
    'wk-writer': expect.stringMatching(/^[0-9a-f-]{36}$/),
  });
});

test('goes on where it was, with nothing asked or sent again', async () => {
  const { directory } = sampleArchive(4);
  const objects = new MemoryObjects();
  await shipOnce(directory, [memory(objects)]);
  const again = memory(objects);
  const { told } = await shipOnce(directory, [again]);
  expect(told('shipped')).toEqual([]);
  // It looks whose archive it is, and whether the store keeps what is there.
  expect(again.calls.map(({ op, key }) => `${op} ${key}`)).toEqual([
    'get archive.json',
    expect.stringMatching(/^get systems\/77\/system.json$/),
    'create archive.json',
  ]);
});

test('takes one PUT a segment, and no LIST', async () => {
  const { directory } = sampleArchive(12);
  const store = memory(new MemoryObjects());
  await shipOnce(directory, [store]);
  const count = (op: string) => store.calls.filter((call) => call.op === op).length;
  // 11 whole ones and the last, and what begins an archive.
  expect(count('create')).toBe(12 + 3);
  expect(count('head')).toBe(0);
  // Of an empty place only: is anything of another cluster there, or WAL as a receiver has it?
  expect(count('list')).toBe(2);
  const again = memory(store.objects);
  await shipOnce(sampleArchive(12).directory, [again]);
  expect(again.calls.filter(({ op }) => op === 'list')).toEqual([]);
});

test('what is not compressed is made ready while the one before is on its way', async () => {
  const { directory } = sampleArchive(5);
  const store = memory(new MemoryObjects());
  const loaded = vi.spyOn(ShipSource.prototype, 'load');
  const create = store.create.bind(store);
  let [begun, underWay, most] = [0, 0, 0];
  store.create = async (key, ...rest) => {
    if (!key.includes('/wal/')) return create(key, ...rest);
    most = Math.max(most, ++underWay);
    try {
      const wanted = Math.min(4, ++begun + 1);
      const ready = () => loaded.mock.calls.length >= wanted;
      await waitFor(ready, { what: 'the next segment to be read' });
      return await create(key, ...rest);
    } finally {
      underWay--;
    }
  };
  const { result } = await shipOnce(directory, [store], { jobs: 1 });
  expect(result.places[0]?.error).toBeUndefined();
  expect(differences(directory, store.objects)).toEqual([]);
  expect(most).toBe(1);
  loaded.mockRestore();
});

test('follows timelines, with their histories before their WAL', async () => {
  const directory = fixtureArchive('promoted');
  const objects = new MemoryObjects();
  const { told } = await shipOnce(directory, [memory(objects)]);
  const names = told('shipped').map(({ name }) => name);
  const history = names.indexOf('00000002.history');
  expect(history).toBeGreaterThanOrEqual(0);
  expect(names.findIndex((name) => name.startsWith('000000020'))).toBeGreaterThan(history);
  expect(keysOf(objects)).toContain('history/00000002.history');
  expect(differences(directory, objects)).toEqual([]);
});

test('a second cluster is refused before anything is stored, unless it is wanted', async () => {
  const objects = new MemoryObjects();
  await shipOnce(sampleArchive(2).directory, [memory(objects)]);
  const before = objects.entries().map(([key]) => key);
  const other = sampleArchive(3, { systemId: 78n }).directory;
  const { result, told } = await shipOnce(other, [memory(objects)]);
  expect(result.places[0]?.error).toMatchObject({ code: 'WK_SYSTEM_IDENTIFIER' });
  expect(told('stopped')).toHaveLength(1);
  expect(objects.entries().map(([key]) => key)).toEqual(before);
  const wanted = await shipOnce(other, [memory(objects)], { newSystem: true });
  expect(wanted.result.places[0]).toMatchObject({ segments: 0 });
  expect(differences(other, objects, 78n)).toEqual([]);
  // From now on it is known.
  const third = await shipOnce(other, [memory(objects)]);
  expect(third.result.places[0]?.error).toBeUndefined();
});

test('what differs is kept aside, and the place is given up', async () => {
  const objects = new MemoryObjects();
  const first = sampleArchive(3);
  await shipOnce(first.directory, [memory(objects)]);
  // A clone: the same cluster wrote other WAL.
  const clone = sampleArchive(4);
  const before = contentOf(objects, `/${first.names[0]}`);
  for (const times of [1, 2]) {
    const { result, told } = await shipOnce(clone.directory, [memory(objects)], { jobs: 1 });
    expect(result.places[0]?.error, `${times}`).toMatchObject({
      code: 'WK_STORE_CONFLICT',
      key: expect.stringContaining(first.names[0]!),
    });
    expect(told('shipped')).toEqual([]);
    const aside = keysOf(objects).filter((key) => key.startsWith('conflict/'));
    expect(aside).toHaveLength(1);
    const kept = readFileSync(join(clone.directory, clone.names[0]!));
    expect(contentOf(objects, aside[0]!).equals(kept)).toBe(true);
  }
  expect(contentOf(objects, `wal/00000001/${first.names[0]}`).equals(before)).toBe(true);
  expect((await readShipProgress(clone.directory))[0]).toMatchObject({
    state: 'stopped',
    trouble: { code: 'WK_STORE_CONFLICT' },
    lag: { segments: 3 },
  });
});

test('a damaged segment is never sent; what is behind it is, and the position stays', async () => {
  const { directory, names, start } = sampleArchive(5);
  edit(join(directory, names[1]!), (bytes) => {
    bytes[300_000]! ^= 1;
    return bytes;
  });
  const objects = new MemoryObjects();
  const { result, told } = await shipOnce(directory, [memory(objects)]);
  expect(keysOf(objects).filter((key) => key.startsWith('wal/'))).toEqual(
    [0, 2, 3].map((n) => `wal/00000001/${names[n]}`),
  );
  expect(told('held')).toMatchObject([{ name: names[1], error: { code: 'WK_CORRUPT_WAL' } }]);
  const position = { timeline: 1, lsn: start + BigInt(SEGMENT) };
  expect(result.places[0]).toMatchObject({
    position,
    segments: 1,
    held: [{ name: names[1], code: 'WK_CORRUPT_WAL' }],
  });
  expect(await readShipProgress(directory)).toMatchObject([
    { position, lag: { segments: 1, bytes: SEGMENT }, held: [{ name: names[1] }], running: false },
  ]);
  // Mended, it goes out.
  const good = sampleArchive(5);
  copyFileSync(join(good.directory, names[1]!), join(directory, names[1]!));
  const again = await shipOnce(directory, [memory(objects)]);
  expect(again.told('shipped').map(({ name }) => name)).toEqual([names[1]]);
  expect(again.result.places[0]).toMatchObject({ segments: 0, held: [] });
  expect((await readShipProgress(directory))[0]?.held).toEqual([]);
});

test('a damaged segment that was taken away is held no more', async () => {
  const { directory, names } = sampleArchive(3);
  edit(join(directory, names[1]!), (bytes) => {
    bytes[300_000]! ^= 1;
    return bytes;
  });
  const objects = new MemoryObjects();
  await shipOnce(directory, [memory(objects)]);
  expect((await readShipProgress(directory))[0]?.held).toMatchObject([{ name: names[1] }]);
  rmSync(join(directory, names[1]!));
  const { result } = await shipOnce(directory, [memory(objects)]);
  expect(result.places[0]?.held).toEqual([]);
  expect((await readShipProgress(directory))[0]?.held).toEqual([]);
});

test('tells how it is while a place is away, and when it is there', async () => {
  const { directory, start } = sampleArchive(4);
  const store = memory(new MemoryObjects());
  let isAway = true;
  const { shipper } = listened({
    source: directory,
    places: ['s3://bucket/shop'],
    once: false,
    openStore: async () => {
      if (isAway) throw new StoreUncertainError('away');
      return store;
    },
  });
  const stopping = new AbortController();
  const ending = shipper.run(stopping.signal);
  const place = async () => (await shipper.status()).places[0];
  await waitFor(async () => (await place())?.state === 'retrying');
  expect(await shipper.status()).toMatchObject({
    complete: 3,
    places: [{ reached: false, segments: 3, trouble: { message: 'away' } }],
  });
  isAway = false;
  await waitFor(async () => (await place())?.segments === 0);
  expect(await place()).toMatchObject({ reached: true, state: 'ok' });
  expect((await place())?.position?.lsn).toBe(start + 3n * BigInt(SEGMENT));
  stopping.abort();
  await ending;
});

test('a segment of another cluster, one cut short and one that stops are not sent', async () => {
  const { directory, names } = sampleArchive(6);
  await writeLedger(directory);
  const foreign = sampleArchive(6, { systemId: 78n });
  copyFileSync(join(foreign.directory, names[0]!), join(directory, names[0]!));
  edit(join(directory, names[1]!), (bytes) => bytes.subarray(0, 500_000));
  edit(join(directory, names[2]!), (bytes) => bytes.fill(0, 500_000));
  const objects = new MemoryObjects();
  const { told } = await shipOnce(directory, [memory(objects)]);
  expect(told('held').map(({ name, error }) => [name, error.code])).toEqual(
    expect.arrayContaining([
      [names[0], 'WK_SYSTEM_IDENTIFIER'],
      [names[1], 'WK_STORAGE'],
      [names[2], 'WK_CORRUPT_WAL'],
    ]),
  );
  expect(keysOf(objects).filter((key) => key.startsWith('wal/'))).toHaveLength(2);
});

test('an archive that was replaced by an empty one is shipped to anew', async () => {
  const { directory } = sampleArchive(3);
  await shipOnce(directory, [memory(new MemoryObjects())]);
  const objects = new MemoryObjects();
  const { told } = await shipOnce(directory, [memory(objects)]);
  expect(told('warning')).toMatchObject([{ code: 'WK_SHIP_OTHER' }]);
  expect(differences(directory, objects)).toEqual([]);
});

test('one place that is away delays no other', async () => {
  const { directory } = sampleArchive(5);
  const good = new MemoryObjects();
  const away = memory(new MemoryObjects(), 'memory:away');
  const broken = new MemoryStore({
    place: 'memory:away',
    faults: () => ({ kind: 'refused' }),
  });
  const { result } = await shipOnce(directory, [broken, memory(good)], { giveUpAfter: 50 });
  expect(result.places).toMatchObject([
    { place: away.place, error: { code: 'WK_STORE_UNCERTAIN' } },
    { place: 'memory:one', segments: 0 },
  ]);
  expect(differences(directory, good)).toEqual([]);
});

test('a store that replaces what is there is not used', async () => {
  const { directory } = sampleArchive(3);
  const objects = new MemoryObjects();
  const store = memory(objects);
  const create = store.create.bind(store);
  store.create = async (key, content, options) => {
    objects.remove(key);
    return create(key, content, options);
  };
  const { result } = await shipOnce(directory, [store]);
  expect(result.places[0]?.error).toMatchObject({ code: 'WK_STORE_UNSUPPORTED' });
  expect(keysOf(objects)).toEqual([]);
});

test('tells of WAL that went away before it was shipped', async () => {
  const { directory, names } = sampleArchive(6);
  rmSync(join(directory, names[2]!));
  const objects = new MemoryObjects();
  const { told } = await shipOnce(directory, [memory(objects)]);
  expect(told('warning')).toMatchObject([{ code: 'WK_SHIP_MISSING' }]);
});

test('a directory with nothing in it, and one that is not there', async () => {
  const store = memory(new MemoryObjects());
  const { result, told } = await shipOnce(scratchDir('empty'), [store]);
  expect(result).toMatchObject({ reason: 'done', places: [{ segments: 0 }] });
  expect(told('empty')).toMatchObject([{ waits: false }]);
  expect(store.calls).toEqual([]);
  await expect(shipOnce('/does/not/exist', [store])).rejects.toMatchObject({ code: 'WK_STORAGE' });
});

test('says that it waits for WAL where there is none, once', async () => {
  const source = scratchDir('empty');
  const objects = new MemoryObjects();
  const { shipper, told } = listened({ source, places: [memory(objects)], once: false });
  const stop = new AbortController();
  const run = shipper.run(stop.signal);
  await waitFor(() => told('empty').length > 0);
  sampleArchive(3, {}, source);
  await waitFor(() => told('shipped').length >= 2);
  stop.abort();
  await run;
  expect(told('empty')).toEqual([{ event: 'empty', source, waits: true }]);
});

test('a place for its progress that cannot be is told as what it is', async () => {
  const { directory } = sampleArchive(1);
  const file = join(scratchDir(), 'file');
  writeFileSync(file, '');
  const lost = join(scratchDir(), 'lost');
  symlinkSync('nowhere', lost);
  for (const [state, why] of [
    [file, 'Not a directory'],
    [join(file, 'a', 'b'), 'Not a directory'],
    [lost, 'No such file or directory'],
  ] as const) {
    const error = await shipOnce(directory, [memory(new MemoryObjects())], { state }).catch(
      (e) => e,
    );
    expect(error.message).toMatch(`could not create directory "${state}": ${why}`);
    expect(error.retryable).toBe(false);
  }
  expect(readFileSync(file, 'utf8')).toBe('');
});

test('a stop ends calls that get no answer, and notes how far it came', async () => {
  const { directory, names, start } = sampleArchive(6);
  const objects = new MemoryObjects();
  let stalled = (): void => {};
  const stall = new Promise<void>((resolve) => {
    stalled = resolve;
  });
  const store = new MemoryStore({
    objects,
    place: 'memory:one',
    faults: ({ key }) => {
      if (!key.endsWith(names[2]!)) return undefined;
      stalled();
      return { kind: 'stall' };
    },
  });
  const { shipper } = listened({ source: directory, places: [store], jobs: 1, once: false });
  const stop = new AbortController();
  const run = shipper.run(stop.signal);
  await stall;
  stop.abort();
  const position = { timeline: 1, lsn: start + BigInt(2 * SEGMENT) };
  expect(await run).toMatchObject({ reason: 'signal', places: [{ position, segments: 3 }] });
  expect(await readShipProgress(directory)).toMatchObject([{ position, running: false }]);
});

test('what was begun is shipped when nobody has written to it for a while, and again as it grows', async () => {
  const { directory, names } = sampleArchive(3);
  const whole = readFileSync(join(directory, names[2]!));
  const path = join(directory, names[2]!);
  writeFileSync(path, Buffer.concat([whole.subarray(0, 100_000), Buffer.alloc(SEGMENT - 100_000)]));
  const objects = new MemoryObjects();
  const options = { source: directory, places: [memory(objects)], once: false, quietTime: 1 };
  const { shipper, told } = listened(options);
  const stop = new AbortController();
  const run = shipper.run(stop.signal);
  const partials = () => told('shipped').filter(({ key }) => key.includes('/partial/'));
  await waitFor(() => partials().length === 1);
  writeFileSync(path, whole);
  await waitFor(() => partials().length >= 2);
  stop.abort();
  await run;
  const [first, ...rest] = partials().map(({ lsn }) => lsn!);
  expect(rest.every((lsn) => lsn > first!)).toBe(true);
  const last = partials().at(-1)!;
  const part = contentOf(objects, last.key);
  expect(part.equals(whole.subarray(0, part.length))).toBe(true);
});

test('keeps so many bytes here', async () => {
  const { directory, names } = sampleArchive(10);
  const objects = new MemoryObjects();
  const keepLocal = { size: 5 * SEGMENT };
  const options = { source: directory, places: [memory(objects)], once: false, keepLocal };
  const { shipper, told } = listened(options);
  const stop = new AbortController();
  const run = shipper.run(stop.signal);
  await waitFor(() => told('removed').length >= 4);
  stop.abort();
  await run;
  const left = readdirSync(directory).filter((name) => name.startsWith('0'));
  expect(left.sort()).toEqual(names.slice(4));
});

test('removes nothing here that a place has lost since, and ships it again', async () => {
  const { directory, names } = sampleArchive(10);
  const objects = new MemoryObjects();
  const store = memory(objects);
  await shipOnce(directory, [store]);
  const lost = objects.entries().flatMap(([key]) => (key.includes('/wal/') ? [key] : []));
  expect(lost).toHaveLength(names.length - 1);
  await store.remove(lost);
  const keepLocal = { size: 5 * SEGMENT };
  const options = { source: directory, places: [memory(objects)], once: false, keepLocal };
  const { shipper, told } = listened(options);
  const kept = new Map(names.map((name) => [name, readFileSync(join(directory, name))]));
  const stop = new AbortController();
  const run = shipper.run(stop.signal);
  await waitFor(() => told('removed').length >= 4);
  stop.abort();
  await run;
  for (const { name } of told('removed')) {
    expect(contentOf(objects, `/${name}`).equals(kept.get(name)!)).toBe(true);
  }
  expect(told('warning').map(({ code }) => code)).toContain('WK_SHIP_LOST');
});

test('what only claims to be the same is read before it counts as that', async () => {
  const objects = new MemoryObjects();
  const { directory, names } = sampleArchive(3);
  await shipOnce(directory, [memory(objects)], { jobs: 1 });
  const [key, object] = objects.entries().find(([name]) => name.endsWith(`/${names[1]}`))!;
  // As another program, or a damaged disk, may leave it: the digest is right, the bytes are fewer.
  objects.remove(key);
  objects.create(key, { ...object, bytes: object.bytes.subarray(0, 1000) });
  const { result } = await shipOnce(directory, [memory(objects)], {
    jobs: 1,
    state: scratchDir('state'),
  });
  expect(result.places[0]?.error).toMatchObject({ code: 'WK_STORE_CONFLICT', key });
});

test('an object that is gone before it is looked at is stored again', async () => {
  const objects = new MemoryObjects();
  const { directory, names } = sampleArchive(3);
  await shipOnce(directory, [memory(objects)], { jobs: 1 });
  const [key, object] = objects.entries().find(([name]) => name.endsWith(`/${names[1]}`))!;
  objects.remove(key);
  // Without what tells by itself what it is: it has to be read, and by then it was removed.
  objects.create(key, { ...object, meta: {} });
  const store = new MemoryStore({
    objects,
    faults: (call) => {
      if (call.op === 'get' && call.key === key) objects.remove(key);
      return undefined;
    },
  });
  const { result } = await shipOnce(directory, [store], { jobs: 1, state: scratchDir('state') });
  expect(result.places[0]?.error).toBeUndefined();
  expect(keysOf(objects).filter((name) => name.startsWith('conflict/'))).toEqual([]);
  expect(contentOf(objects, `/${names[1]}`).equals(readFileSync(join(directory, names[1]!)))).toBe(
    true,
  );
});
