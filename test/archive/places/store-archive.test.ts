import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { StoreArchive } from '../../../src/archive/places/store-archive.js';
import {
  backupHistoryKey,
  partialKey,
  segmentKey,
  systemPrefix,
} from '../../../src/archive/store-keys.js';
import { findEvents } from '../../../src/find/find.js';
import { listArchive } from '../../../src/list/list.js';
import { MemoryObjects, MemoryStore } from '../../../src/store/memory.js';
import { openStore } from '../../../src/store/open.js';
import { verifyArchive } from '../../../src/verify/verify.js';
import { beginArchive, put, storeArchiveOf, storeFiles } from '../../support/store-archive.js';
import { archiveOf, flip, SEGMENT, SYSTEM_ID } from '../../support/wal-archive.js';

const seg = (n: number, timeline = 1) =>
  `0000000${timeline}00000000${n.toString(16).toUpperCase().padStart(8, '0')}`;

/** An archive in memory, and the store that it asks. */
async function inMemory(fixture: string, systemId: bigint | undefined = SYSTEM_ID) {
  const objects = new MemoryObjects();
  const store = new MemoryStore({ objects });
  await beginArchive(store);
  await storeFiles(store, archiveOf(fixture).dir);
  const asked = new MemoryStore({ objects });
  return { archive: new StoreArchive(asked, systemId), store, asked };
}

describe('an archive in a store', () => {
  it.each(['switch', 'promoted'])('%s is listed, read and verified as its directory', async (f) => {
    const { dir } = archiveOf(f);
    const { place } = await storeArchiveOf(dir);
    const flat = await verifyArchive(dir);
    const stored = await verifyArchive(place);
    const codes = (findings: typeof flat.findings) =>
      findings.map(({ severity, code, file }) => `${severity} ${code} ${file}`);
    expect(codes(stored.findings)).toEqual(codes(flat.findings));
    expect(stored.summary).toMatchObject({
      segments: flat.summary.segments,
      bytes: flat.summary.bytes,
      systemId: SYSTEM_ID,
      errors: 0,
    });
    const [a, b] = [await listArchive(dir), await listArchive(place)];
    const bare = ({ timelines }: typeof a) =>
      timelines.map(({ ranges, ...t }) => ({
        ...t,
        ranges: ranges.map(({ size: _, ...range }) => range),
      }));
    expect(bare(b)).toEqual(bare(a));
    const eventsOf = async (place: string) => {
      const events: unknown[] = [];
      const result = await findEvents(place, {}, (event) => void events.push(event));
      return { events, result };
    };
    expect(await eventsOf(place)).toEqual(await eventsOf(dir));
  });

  it('is of the cluster that is named where a store has several', async () => {
    const { place } = await storeArchiveOf(archiveOf('switch').dir);
    const before = await listArchive(place);
    const other = SYSTEM_ID + 1n;
    await using store = await openStore(place);
    await put(
      store,
      segmentKey(other, seg(1)),
      readFileSync(join(archiveOf('switch').dir, seg(7))),
    );
    await expect(listArchive(place)).rejects.toMatchObject({
      code: 'WK_USAGE',
      message: expect.stringContaining('2 clusters'),
      hint: expect.stringContaining('--system-id'),
    });
    expect(await listArchive(place, undefined, { systemId: SYSTEM_ID })).toEqual(before);
    const { summary } = await verifyArchive(place, { keys: { systemId: SYSTEM_ID } });
    expect(summary).toMatchObject({ systemId: SYSTEM_ID, errors: 0 });
  });

  it('tells damage in every place of a segment', async () => {
    const { dir } = archiveOf('switch');
    const bad = join(dir, seg(8));
    for (const at of [0x4, 0x30, 0x100]) {
      const whole = readFileSync(bad);
      flip(bad, at);
      const { place } = await storeArchiveOf(dir);
      const { findings } = await verifyArchive(place);
      expect(findings).toEqual((await verifyArchive(dir)).findings);
      expect(findings.some(({ severity, file }) => severity === 'error' && file === seg(8))).toBe(
        true,
      );
      writeFileSync(bad, whole);
    }
  });

  it('tells a cut object, one under another key, and what was kept aside', async () => {
    const { archive, store } = await inMemory('switch');
    await store.remove([segmentKey(SYSTEM_ID, seg(7)), segmentKey(SYSTEM_ID, seg(8))]);
    const content = readFileSync(join(archiveOf('switch').dir, seg(9)));
    const packed = gzipSync(content);
    await put(store, segmentKey(SYSTEM_ID, seg(7)), packed.subarray(0, packed.length / 2));
    await put(store, segmentKey(SYSTEM_ID, seg(8)), packed);
    await put(store, `${systemPrefix(SYSTEM_ID)}conflict/${seg(9)}/x`, packed);
    expect((await archive.list()).map(({ name }) => name)).toContain(`conflict/${seg(9)}/x`);
    const cut = await archive.segment(seg(7), (file) => file.read(SEGMENT, () => true));
    expect(cut).toMatchObject({ end: 'damaged' });
  });

  it('is not called absent unless it is proven to be an archive', async () => {
    const store = new MemoryStore();
    const archive = new StoreArchive(store, SYSTEM_ID);
    for (const ask of [
      () => archive.stored(seg(7), false),
      () => archive.stored(seg(7), false, { toRead: true }),
      () => archive.stored(seg(7), true),
      () => archive.text('00000002.history'),
      () => archive.history(2),
      () => archive.list(),
      () => archive.listAround(seg(7)),
      () => archive.cluster(),
      () => archive.has(seg(7)),
      () => archive.completeName(seg(7)),
      () => archive.segment(seg(7), () => 0),
    ]) {
      await expect(ask()).rejects.toMatchObject({ code: 'WK_ARCHIVE_ACCESS' });
    }
    // Begun since then.
    await beginArchive(store);
    expect(await archive.stored(seg(7), false)).toEqual([]);
    expect(await archive.list()).toEqual([]);
  });

  it('knows its one cluster, and asks which of several', async () => {
    const { archive, store } = await inMemory('switch', undefined);
    expect(await archive.cluster()).toEqual({ systemId: SYSTEM_ID, segmentSize: SEGMENT });
    await beginArchive(store, 77n);
    const again = new StoreArchive(store, undefined);
    await expect(again.list()).rejects.toMatchObject({ code: 'WK_USAGE' });
    expect(await new StoreArchive(store, 77n).list()).toEqual([]);
    await expect(new StoreArchive(store, 78n).cluster()).rejects.toMatchObject({
      code: 'WK_SYSTEM_IDENTIFIER',
    });
  });

  it('has of an unfinished segment what was shipped last, until it is whole', async () => {
    const { archive, store } = await inMemory('switch');
    const content = readFileSync(join(archiveOf('switch').dir, `${seg(12)}.partial`));
    const key = partialKey(SYSTEM_ID, seg(12), 0xffff_ffffn);
    await put(store, key, content.subarray(0, 100_000));
    const bytes = (await archive.stored(seg(12), true)).map((file) => file.size());
    expect(await bytes[0]).toBe(100_000);
    expect((await archive.stored(seg(12), true))[0]?.path).toContain(key);
    await put(store, segmentKey(SYSTEM_ID, seg(12)), content);
    const names = (await archive.list()).map(({ name }) => name);
    expect(names.filter((name) => name.startsWith(seg(12)))).toEqual([seg(12)]);
    await store.remove([key]);
    const found = await archive.segment(`${seg(12)}.partial`, (file) => file.name);
    expect(found).toBe(seg(12));
  });

  it('tells with a few requests what lies around a segment', async () => {
    const { archive, asked } = await inMemory('promoted');
    const names = (await archive.listAround(seg(1))).map(({ name }) => name);
    expect(names).toContain('00000002.history');
    expect(names.some((name) => name.startsWith('00000001'))).toBe(true);
    expect(asked.calls.length).toBeLessThan(16);
  });

  it('goes on reading where a connection broke', async () => {
    const { dir } = archiveOf('switch');
    const objects = new MemoryObjects();
    const store = new MemoryStore({ objects });
    await beginArchive(store);
    await storeFiles(store, dir, (bytes) => bytes);
    let broken = 0;
    const breaking = new MemoryStore({
      objects,
      faults: ({ op }) =>
        op === 'get' && broken++ < 4 ? { kind: 'short', bytes: 100_000 } : undefined,
    });
    const pieces: Buffer[] = [];
    await new StoreArchive(breaking, SYSTEM_ID).segment(seg(7), async (file) => {
      for await (const piece of file.bytes(SEGMENT)) pieces.push(Buffer.from(piece));
    });
    expect(Buffer.concat(pieces).equals(readFileSync(join(dir, seg(7))))).toBe(true);
    expect(broken).toBeGreaterThan(4);
  });
});

describe('what is removed from a store', () => {
  async function setUp() {
    const { archive, store, asked } = await inMemory('switch');
    const backup = `${seg(5)}.00000028.backup`;
    await put(store, backupHistoryKey(SYSTEM_ID, backup), Buffer.from('START WAL LOCATION\n'));
    const names = async () => (await archive.list()).map(({ name }) => name).sort();
    return { archive, store, asked, backup, names };
  }

  it('a backup history file is listed, and goes without its segment', async () => {
    const { archive, backup, names } = await setUp();
    const before = await names();
    expect(before).toContain(backup);
    expect(await archive.remove([backup])).toEqual({ removed: [backup], retained: [] });
    expect(await names()).toEqual(before.filter((name) => name !== backup));
  });

  it('segments go at once, with what was shipped of them before', async () => {
    const { archive, store, asked, names } = await setUp();
    const before = await names();
    const gone = before.filter((name) => /^[0-9A-F]{24}$/.test(name)).slice(0, 2);
    const begun = partialKey(SYSTEM_ID, gone[0]!, 5n);
    await put(store, begun, Buffer.from('begun'));
    const calls: string[] = [];
    const { remove, list } = asked;
    asked.remove = (keys, o) => {
      calls.push('remove');
      return remove.call(asked, keys, o);
    };
    asked.list = (prefix, o) => {
      calls.push(`list ${prefix}`);
      return list.call(asked, prefix, o);
    };
    expect((await archive.remove(gone)).removed).toEqual(gone);
    expect(calls.length).toBeLessThanOrEqual(2);
    expect(await names()).toEqual(before.filter((name) => !gone.includes(name)));
    expect(await store.head(begun)).toBeUndefined();
  });

  it('what a lock holds is told, and is no error', async () => {
    const { archive, asked, names } = await setUp();
    const before = await names();
    asked.remove = async (keys) => ({ removed: [], retained: [...keys] });
    const [first] = before;
    expect(await archive.remove([first!])).toEqual({ removed: [], retained: [first] });
    expect(await names()).toEqual(before);
  });
});
