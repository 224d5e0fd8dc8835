import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { type ObjectCodec, StoreArchiveWriter } from '../../src/archive/store-archive-writer.js';
import { decodeBytes } from '../../src/codec/stages.js';
import { CorruptObjectError, StoreConflictError, SystemIdentifierError } from '../../src/errors.js';
import { bytesOf, contentOf } from '../../src/store/content.js';
import { MemoryObjects, MemoryStore } from '../../src/store/memory.js';
import type { ObjectStore } from '../../src/store/store.js';

const [A, B] = [77n, 88n];

const json = (value: object) => contentOf(Buffer.from(`${JSON.stringify(value)}\n`));

const codec: ObjectCodec = {
  encode: async (bytes: Uint8Array) => ({ bytes, stages: 'none', release: () => {} }),
  decode: async (bytes: Uint8Array) => bytes,
};

const gzip: ObjectCodec = {
  ...codec,
  decode: async (bytes) => (await decodeBytes(bytes, { name: 'it' })).content,
};

function open(store: ObjectStore, systemId: bigint, newSystem = false, how: ObjectCodec = codec) {
  const options = { systemId, segmentSize: 1 << 20, codec: how, writer: 'test', newSystem };
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

describe('what stands there, of which no digest is known', () => {
  const HISTORY = Buffer.from('1\t0/3000000\tno recovery target specified\n');
  const key = `systems/${A}/history/00000002.history`;

  /** Of one object the first so many bodies have another bit. */
  function damaging(store: MemoryStore, times: number): ObjectStore {
    const get: ObjectStore['get'] = async (wanted, options) => {
      const got = await store.get(wanted, options);
      if (!got || wanted !== key) return got;
      const bytes = await bytesOf(got.body);
      if (times-- > 0) bytes[bytes.length >> 1]! ^= 1;
      const body = (async function* () {
        yield bytes;
      })();
      return { ...got, sha256: undefined, body };
    };
    return new Proxy(store, {
      get: (target, name) => {
        const value = name === 'get' ? get : Reflect.get(target, name);
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
  }

  it.each([
    ['plain', codec, HISTORY],
    ['compressed', gzip, gzipSync(HISTORY)],
  ])('is read again before it is called a conflict: %s', async (_, how, stored) => {
    const store = new MemoryStore();
    await store.create(key, contentOf(stored));
    const once = await open(damaging(store, 1), A, false, how);
    expect(await once.putHistory(2, HISTORY)).toMatchObject({ outcome: 'present' });
    expect((await keysOf(store)).filter((one) => one.includes('/conflict/'))).toEqual([]);
    const always = await open(damaging(store, 1000), A, false, how);
    await expect(always.putHistory(2, HISTORY)).rejects.toThrow(StoreConflictError);
  });
});
