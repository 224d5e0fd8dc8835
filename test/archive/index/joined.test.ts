import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import { beforeAll, expect, test } from 'vitest';
import { indexKey, joinedKey } from '../../../src/archive/backups/keys.js';
import type { Catalog } from '../../../src/archive/catalog.js';
import { readFacts } from '../../../src/archive/index/facts.js';
import { indexBytes, parseIndex } from '../../../src/archive/index/format.js';
import { updateIndex } from '../../../src/archive/index/update.js';
import { packXids } from '../../../src/archive/index/xid-ranges.js';
import { readCatalog } from '../../../src/archive/read-catalog.js';
import { wayFrom } from '../../../src/archive/targets/way.js';
import { parseRecipients } from '../../../src/codec/age/recipients.js';
import { encodeBytes } from '../../../src/codec/stages.js';
import { contentOf } from '../../../src/store/content.js';
import { MemoryObjects, MemoryStore } from '../../../src/store/memory.js';
import { segmentFileName } from '../../../src/wal/file-name.js';
import { commitIn, largeArchive, largeIndex } from '../targets/large-archive.js';
import { SEGMENT } from '../targets/way-model.js';

/** From segment 64 on: those from 1024 on are joined, those from 2048 on are too few. */
const SEGMENTS = 2100;
const KEY = joinedKey('', segmentFileName(1, 1024n, SEGMENT));
const target = { kind: 'xid', xid: commitIn(1500).xid, inclusive: true } as const;
let catalog: Catalog;

beforeAll(async () => {
  catalog = await readCatalog(largeArchive(SEGMENTS));
});

const areaOf = (objects: MemoryObjects) => ({
  ...{ place: 'memory', store: new MemoryStore({ objects }), prefix: '' },
  close: async () => {},
});

/** An index of which nothing is joined. */
async function index(
  sealed: (bytes: Buffer) => Promise<Uint8Array> = async (bytes) => bytes,
  segments = SEGMENTS,
) {
  const objects = new MemoryObjects();
  const { store } = areaOf(objects);
  for (const { key, bytes } of largeIndex(segments)) {
    await store.create(key, contentOf(Buffer.from(await sealed(bytes))));
  }
  return objects;
}

async function factsIn(objects: MemoryObjects) {
  const area = areaOf(objects);
  const after = { lsn: commitIn(100).endLsn, redo: commitIn(98).lsn, timeline: 1 };
  const way = wayFrom(catalog, after, undefined);
  if ('unreachable' in way) throw new Error('there is a way');
  const { first, behind, plan } = way.stretch;
  const { facts, notes } = await readFacts(area, plan, { from: first, to: behind }, target);
  const all = Array.from({ length: behind - first }, (_, i) => facts(first + i));
  return { all, notes, gets: area.store.calls.filter(({ op }) => op === 'get').length };
}

test('joined, the index says the same and is read from fewer objects', async () => {
  const objects = await index();
  const before = await factsIn(objects);
  expect(before.all.filter((one) => one?.holds)).toHaveLength(1);
  const made = await updateIndex(catalog, areaOf(objects));
  expect(made).toMatchObject({ created: 1, unsound: [] });
  const joined = objects.entries().filter(([key]) => key.endsWith('.32'));
  expect(joined.map(([key]) => key)).toEqual([KEY]);
  const after = await factsIn(objects);
  expect({ ...after, gets: 0 }).toEqual({ ...before, gets: 0 });
  expect(after.gets).toBe(before.gets - 31);
  // Those that it was joined of may be gone.
  const { store } = areaOf(objects);
  const keys = [...largeIndex(SEGMENTS)].map(({ key }) => key);
  await store.remove(keys.filter((key) => key >= KEY.slice(0, -3)).slice(0, 32));
  expect({ ...(await factsIn(objects)), gets: 0 }).toEqual({ ...before, gets: 0 });
});

test('one that is damaged is not needed', async () => {
  const objects = await index();
  const before = await factsIn(objects);
  await updateIndex(catalog, areaOf(objects));
  const { bytes } = objects.get(KEY)!;
  const { store } = areaOf(objects);
  for (const damaged of [Buffer.from('x'), bytes.subarray(0, bytes.length - 40)]) {
    await store.remove([KEY]);
    await store.create(KEY, contentOf(Buffer.from(damaged)));
    const { all, notes } = await factsIn(objects);
    expect({ all, notes }).toEqual({ all: before.all, notes: [] });
  }
});

test('joined objects count as others do', async () => {
  const objects = await index();
  const present = objects.entries().length;
  const told: string[] = [];
  const update = (limit?: number) =>
    updateIndex(catalog, areaOf(objects), { limit, onObject: (key) => told.push(key) });
  expect(await update(0)).toEqual({ created: 0, present, left: 1, unsound: [] });
  expect(objects.get(KEY)).toBeUndefined();
  expect(told).toEqual([]);
  expect(await update(1)).toEqual({ created: 1, present, left: 0, unsound: [] });
  expect(told).toEqual([KEY]);
  expect(await update(0)).toEqual({ created: 0, present: present + 1, left: 0, unsound: [] });
});

test('what is too large to be joined is not read to find that out', async () => {
  const xids = packXids(Array.from({ length: 5000 }, (_, i) => 1000 + 3 * i));
  const objects = await index(async (bytes) => {
    const group = parseIndex(bytes, 'it');
    const segments = group.segments.map((segment) => segment && { ...segment, xids });
    return indexBytes({ ...group, segments });
  });
  const area = areaOf(objects);
  expect(await updateIndex(catalog, area)).toMatchObject({ created: 0, left: 0, unsound: [] });
  expect(area.store.calls.map(({ op }) => op)).toEqual(['list']);
});

test('damage in one of 32 leaves only these 32 as they are', async () => {
  const objects = await index(undefined, 3100);
  const larger = await readCatalog(largeArchive(3100));
  objects.damage(indexKey('', segmentFileName(1, 1024n + 320n, SEGMENT)), 40);
  expect(await updateIndex(larger, areaOf(objects))).toMatchObject({ unsound: [] });
  const joined = objects.entries().filter(([key]) => key.endsWith('.32'));
  expect(joined.map(([key]) => key)).toEqual([joinedKey('', segmentFileName(1, 2048n, SEGMENT))]);
});

test('nothing is joined that is then readable to more', async () => {
  const recipient = await identityToRecipient(await generateX25519Identity());
  const recipients = await parseRecipients([recipient]);
  const objects = await index((bytes) => encodeBytes(bytes, { recipients }));
  for (const options of [{}, { recipients }]) {
    await updateIndex(catalog, areaOf(objects), options);
    expect(objects.entries().filter(([key]) => key.endsWith('.32'))).toEqual([]);
  }
});
