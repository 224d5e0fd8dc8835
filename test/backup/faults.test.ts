import { expect, test } from 'vitest';
import { readBackups } from '../../src/archive/backups/catalog.js';
import { StoreAccessError } from '../../src/errors.js';
import {
  type MemoryCall,
  type MemoryFault,
  MemoryObjects,
  MemoryStore,
} from '../../src/store/memory.js';
import { backUp, type FakeBackup, FILES, SPACE, WHOLE } from './fake-server.js';

/** Longer than anything that nobody works on is left alone. */
const LATER = 3 * 3_600_000;

const SMALL: FakeBackup = {
  tars: [
    {
      name: '16388.tar',
      oid: 16388,
      files: SPACE.map((f) => ({ ...f, content: f.content.subarray(0, 600) })),
    },
    { name: 'base.tar', files: FILES.map((f) => ({ ...f, content: f.content.subarray(0, 1000) })) },
  ],
};
const GZIP = { compression: { method: 'gzip' as const, level: 1 } };

const area = (store: MemoryStore) => ({
  ...{ place: 'memory:', store, prefix: '', close: async () => {} },
});

/** What a plain run asks of a store, in its order. */
async function plainCalls(): Promise<MemoryCall[]> {
  const store = new MemoryStore();
  await backUp(store, SMALL, GZIP);
  return store.calls;
}

/** All that is listed is complete: its objects are there, and are what its record says. */
async function requireSound(objects: MemoryObjects, complete: readonly string[]): Promise<void> {
  const all = await readBackups(area(new MemoryStore({ objects })));
  expect(all.filter(({ problem }) => problem)).toEqual([]);
  expect(all.filter(({ record }) => record).map(({ id }) => id)).toEqual(complete);
  for (const { record } of all) {
    for (const { name, size, sha256 } of record?.objects ?? []) {
      const found = objects.get(`backups/${record!.id}/${name}`);
      expect({ name, size: found?.bytes.length, sha256: found?.sha256 }).toEqual({
        name,
        size,
        sha256,
      });
    }
  }
}

const FAULTS: [string, (call: MemoryCall) => MemoryFault][] = [
  ['refused', () => ({ kind: 'refused' })],
  ['lost', () => ({ kind: 'lost' })],
  ['late', () => ({ kind: 'late' })],
  ['denied', () => ({ kind: 'error', error: new StoreAccessError('denied') })],
];

test.each(FAULTS)(
  'whatever call is %s: a backup is there or is not, and the next one clears up',
  async (_, faultOf) => {
    const calls = await plainCalls();
    expect(calls.length).toBeGreaterThan(15);
    for (let at = 0; at < calls.length; at++) {
      let now = 1_000_000_000_000;
      const objects = new MemoryObjects(() => now);
      let n = 0;
      const faults = (call: MemoryCall) => (n++ === at ? faultOf(call) : undefined);
      const store = new MemoryStore({ objects, faults });
      const taken = await backUp(store, SMALL, GZIP).catch((e) => {
        expect(e).toHaveProperty('code');
        return undefined;
      });
      objects.settle();
      const complete = taken ? [taken.id] : [];
      await requireSound(objects, complete);
      now += LATER;
      const next = await backUp(new MemoryStore({ objects }), SMALL, GZIP);
      complete.push(next.id);
      await requireSound(objects, complete.sort());
      const all = await readBackups(area(new MemoryStore({ objects })));
      expect(all.map(({ id }) => id)).toEqual(complete);
    }
  },
);

test('single answers that are lost fail no backup once it has begun', async () => {
  const calls = await plainCalls();
  for (let at = 0; at < calls.length; at++) {
    if (calls[at]?.op !== 'create' || calls[at]?.key.startsWith('lease/')) continue;
    let n = 0;
    const faults = (): MemoryFault | undefined => (n++ === at ? { kind: 'lost' } : undefined);
    await backUp(new MemoryStore({ faults }), SMALL, GZIP);
  }
});

test('a record that arrives late is that of a whole backup', async () => {
  const objects = new MemoryObjects();
  const faults = ({ op, key }: MemoryCall): MemoryFault | undefined =>
    op === 'create' && key.endsWith('/backup.json') ? { kind: 'late' } : undefined;
  const error = await backUp(new MemoryStore({ objects, faults }), SMALL, GZIP).catch((e) => e);
  expect(error.message).toMatch(/whether backup \S+ exists is not known/);
  objects.settle();
  const [only] = await readBackups(area(new MemoryStore({ objects })));
  await requireSound(objects, [only!.id]);
});

/** Before what is asked for is done, and when it is done but not yet answered. */
test.each([false, true])(
  'killed at any call (done: %s): nothing incomplete is listed, and the next run clears up',
  async (done) => {
    const calls = await plainCalls();
    for (let at = 0; at < calls.length; at++) {
      let now = 1_000_000_000_000;
      const objects = new MemoryObjects(() => now);
      let n = 0;
      let reached: () => void = () => {};
      const killed = new Promise<void>((resolve) => {
        reached = resolve;
      });
      const store: MemoryStore = new MemoryStore({
        objects,
        faults: () => {
          if (n++ !== at) return undefined;
          // All that is under way stands still from here on.
          setImmediate(() => {
            store.crash();
            reached();
          });
          return { kind: 'stall', done };
        },
      });
      const run = backUp(store, SMALL, GZIP);
      run.catch(() => {});
      await killed;
      const committed = (await readBackups(area(new MemoryStore({ objects })))).filter(
        ({ record }) => record,
      );
      // Only once its last object but leases is there.
      if (at < calls.length - 6) expect(committed).toEqual([]);
      now += LATER;
      const next = await backUp(new MemoryStore({ objects }), SMALL, GZIP);
      const complete = [...committed.map(({ id }) => id), next.id].sort();
      await requireSound(objects, complete);
      const all = await readBackups(area(new MemoryStore({ objects })));
      expect(all.map(({ id }) => id)).toEqual(complete);
    }
  },
);

test('what another one is still at work on is left alone', async () => {
  let now = 1_000_000_000_000;
  const objects = new MemoryObjects(() => now);
  const first = new MemoryStore({ objects });
  let second: Promise<unknown> | undefined;
  // Another backup begins and ends while the first one stores its last volume.
  class Waiting extends MemoryStore {
    override async create(...args: Parameters<MemoryStore['create']>) {
      if (args[0].includes('/base.tar') && !second) {
        now += 600_000;
        second = backUp(first, SMALL, GZIP);
        await second;
      }
      return super.create(...args);
    }
  }
  const { id, record } = await backUp(new Waiting({ objects }), SMALL, GZIP);
  await requireSound(objects, [id, ((await second) as { id: string }).id].sort());
  expect(record.objects.length).toBeGreaterThan(5);
});

test('a backup that was taken for dead and cleared away is not committed', async () => {
  let now = 1_000_000_000_000;
  const objects = new MemoryObjects(() => now);
  let cleaned: string[] = [];
  class Asleep extends MemoryStore {
    override async create(...args: Parameters<MemoryStore['create']>) {
      const [key] = args;
      if (key.endsWith('/base.index') && cleaned.length === 0) {
        const made = await super.create(...args);
        now += LATER;
        ({ cleaned } = await backUp(new MemoryStore({ objects }), SMALL, GZIP));
        return made;
      }
      return super.create(...args);
    }
  }
  const error = await backUp(new Asleep({ objects }), SMALL, GZIP).catch((e) => e);
  expect(cleaned).toHaveLength(1);
  expect(error).toMatchObject({ code: expect.stringMatching(/WK_LEASE_LOST|WK_CORRUPT_OBJECT/) });
  const all = await readBackups(area(new MemoryStore({ objects })));
  expect(all.map(({ record }) => record === undefined)).toEqual([false]);
});

test('a whole backup of a real size is sound', async () => {
  const objects = new MemoryObjects();
  const { id } = await backUp(new MemoryStore({ objects }), WHOLE);
  await requireSound(objects, [id]);
});
