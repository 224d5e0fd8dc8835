import { describe, expect, it } from 'vitest';
import { StoreArchiveWriter } from '../../src/archive/store-archive-writer.js';
import { CorruptObjectError, SystemIdentifierError } from '../../src/errors.js';
import { contentOf } from '../../src/store/content.js';
import { MemoryObjects, MemoryStore } from '../../src/store/memory.js';
import type { ObjectStore } from '../../src/store/store.js';

const [A, B] = [77n, 88n];

const json = (value: object) => contentOf(Buffer.from(`${JSON.stringify(value)}\n`));

const codec = {
  encode: async (bytes: Uint8Array) => ({ bytes, stages: 'none', release: () => {} }),
  decode: async (bytes: Uint8Array) => bytes,
};

function open(store: ObjectStore, systemId: bigint, newSystem = false) {
  const options = { systemId, segmentSize: 1 << 20, codec, writer: 'test', newSystem };
  return StoreArchiveWriter.open(store, options);
}

/** As `store --init` leaves it. */
async function begun(): Promise<MemoryStore> {
  const store = new MemoryStore();
  await store.create('archive.json', json({ format: 1, id: 'test' }));
  return store;
}

async function keysOf(store: ObjectStore): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of store.list('')) keys.push(key);
  return keys;
}

describe('an archive that was begun for no cluster in particular', () => {
  it.each([
    [A, B],
    [B, A],
  ])('is that of one of two that open it at once: %s, %s', async (...systems) => {
    const store = await begun();
    const results = await Promise.allSettled(systems.map((system) => open(store, system)));
    const isIn = results.map(({ status }) => status === 'fulfilled');
    expect(isIn.sort()).toEqual([false, true]);
    const own = systems[results.findIndex(({ status }) => status === 'fulfilled')]!;
    const refused = results.find(({ status }) => status === 'rejected') as PromiseRejectedResult;
    expect(refused.reason).toBeInstanceOf(SystemIdentifierError);
    expect(refused.reason).toMatchObject({ expected: `${own}` });
    expect(await keysOf(store)).toEqual([
      'archive.json',
      'system.json',
      `systems/${own}/system.json`,
    ]);
    await open(store, own);
    const other = own === A ? B : A;
    await expect(open(store, other)).rejects.toThrow(SystemIdentifierError);
    await open(store, other, true);
    await open(store, other);
  });

  it('stays that of who was killed before anything of it was stored', async () => {
    const store = await begun();
    await store.create('system.json', json({ format: 1, system: `${A}` }));
    await expect(open(store, B)).rejects.toThrow(SystemIdentifierError);
    await open(store, B, true);
    await open(store, A);
  });

  it('is that of who is in it already', async () => {
    const store = await begun();
    await store.create(
      `systems/${A}/system.json`,
      json({ format: 1, system: `${A}`, segmentSize: 1 << 20 }),
    );
    await expect(open(store, B)).rejects.toThrow(SystemIdentifierError);
    await open(store, A);
    expect(await keysOf(store)).toEqual(['archive.json', `systems/${A}/system.json`]);
  });

  it('lets nobody in where what decides is damaged', async () => {
    const store = await begun();
    await store.create('system.json', json({ format: 1 }));
    await expect(open(store, A)).rejects.toThrow(CorruptObjectError);
  });
});

it('an archive that names its cluster needs no more', async () => {
  const objects = new MemoryObjects();
  const [one, two] = [new MemoryStore({ objects }), new MemoryStore({ objects })];
  const results = await Promise.allSettled([open(one, A), open(two, B)]);
  expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
  expect(await keysOf(one)).toHaveLength(2);
});
