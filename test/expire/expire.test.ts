import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { TIMING } from '../../src/archive/backups/hold.js';
import { backupKey, CLAIM, indexKey, joinedKey } from '../../src/archive/backups/keys.js';
import { holdLease } from '../../src/archive/backups/lease.js';
import { expireArea } from '../../src/expire/expire.js';
import { keepInArea } from '../../src/expire/keep.js';
import type { ExpireOptions } from '../../src/expire/options.js';
import { ownIdentity } from '../../src/files/process-identity.js';
import { contentOf } from '../../src/store/content.js';
import { type MemoryFault, MemoryObjects, MemoryStore } from '../../src/store/memory.js';
import {
  archiveOf,
  areaOf,
  beginArchive,
  idOf,
  PREFIX,
  putBackup,
  putHistory,
  putWal,
} from './memory-place.js';

const DAY = 86_400_000;

/** A store with a clock of its own. */
function place() {
  const clock = { now: Date.UTC(2026, 10, 1) };
  const objects = new MemoryObjects(() => clock.now);
  const store = new MemoryStore({ objects });
  return { clock, objects, store };
}

/** A backup and five segments each day. */
async function daysOf(days: number) {
  const made = place();
  await beginArchive(made.store);
  for (let day = 0; day < days; day++) {
    await putWal(made.store, 1, day * 5, day * 5 + 5);
    await putBackup(made.store, idOf(day), day * 5);
    made.clock.now += DAY;
  }
  for (const segment of ['000000000000000000000000', '000000000000000000000020']) {
    const name = `00000001${segment.slice(8)}`;
    await made.store.create(indexKey(PREFIX, name), contentOf(Buffer.from(name)));
  }
  return made;
}

const tenDays = () => daysOf(10);

/** Nobody is waited for. */
const IMPATIENT = {
  ...TIMING,
  wait: (ms: number, signal?: AbortSignal, idle = false) =>
    idle ? TIMING.wait(ms, signal, true) : Promise.resolve(),
};

function expire(store: MemoryStore, options: ExpireOptions) {
  return expireArea(areaOf(store), archiveOf(store), options);
}

const keysOf = (objects: MemoryObjects) => objects.entries().map(([key]) => key);
const walOf = (objects: MemoryObjects) =>
  keysOf(objects).flatMap((key) => /wal\/.*0000(..)$/.exec(key)?.slice(1) ?? []);
const backupsOf = (objects: MemoryObjects) =>
  keysOf(objects).flatMap((key) => /backups\/(.*)\/backup\.json$/.exec(key)?.slice(1) ?? []);

describe('an expire', () => {
  it('removes what a dry run says, and that alone', async () => {
    const { store, objects } = await tenDays();
    const before = keysOf(objects);
    const dry = await expire(store, { window: 3 * DAY, dryRun: true });
    expect(keysOf(objects)).toEqual(before);
    const told: unknown[] = [];
    const onRemove = (removal: unknown) => void told.push(removal);
    const real = await expire(store, { window: 3 * DAY, onRemove });
    expect(real).toEqual({ ...dry, now: real.now });
    expect(told).toEqual([...dry.backups, ...dry.wal]);
    // Three days before now the seventh was there, and nothing newer.
    expect(real.backups.map((b) => b.id)).toEqual([0, 1, 2, 3, 4, 5, 6].map((n) => idOf(n)));
    expect(backupsOf(objects)).toEqual([7, 8, 9].map((n) => idOf(n)));
    expect(walOf(objects)[0]).toBe('23');
    expect(real.wal).toMatchObject([{ timeline: 1, segments: 35 }]);
    expect(real.index).toBe(1);
    const gone = before.filter((key) => !keysOf(objects).includes(key));
    expect(gone.filter((key) => !/backups\/|wal\/|index\//.test(key))).toEqual([]);
    expect(keysOf(objects).filter((key) => /lease|intent|clock/.test(key))).toEqual([]);
    expect(await expire(store, { window: 3 * DAY })).toMatchObject({ backups: [], wal: [] });
  });

  it('removes joined objects of the index with the last of their segments', async () => {
    const { clock, store, objects } = place();
    await beginArchive(store);
    for (const [day, first] of [1000, 1030].entries()) {
      await putWal(store, 1, first, first + 30);
      await putBackup(store, idOf(day), first);
      clock.now += DAY;
    }
    const joined = ['000000010000000000000000', '000000010000000000000400'].map((name) =>
      joinedKey(PREFIX, name),
    );
    for (const key of joined) await store.create(key, contentOf(Buffer.from(key)));
    expect((await expire(store, { redundancy: 2 })).index).toBe(0);
    expect((await expire(store, { redundancy: 1 })).index).toBe(1);
    expect(keysOf(objects).filter((key) => key.endsWith('.32'))).toEqual([joined[1]]);
  });

  it('removes at once what a dead process of this machine left, and never what may be at work', async () => {
    const { store, objects } = await tenDays();
    const { pid } = spawnSync('true');
    const own = await ownIdentity();
    const begin = (id: string, writer: object) =>
      store.create(
        backupKey(PREFIX, id, CLAIM),
        contentOf(Buffer.from(JSON.stringify({ format: 1, writer }))),
      );
    const [dead, alive, elsewhere] = [idOf(20), idOf(21), idOf(22)];
    await begin(dead, { ...own, pid });
    await begin(alive, own);
    await begin(elsewhere, { ...own, host: 'another', bootId: 'another', pid });
    await expire(store, { window: 3 * DAY });
    const left = keysOf(objects).filter((key) => key.endsWith(CLAIM));
    expect(left.map((key) => key.split('/').at(-2))).toEqual([alive, elsewhere]);
  });

  it('removes a leftover, and a damaged backup when newer ones are whole', async () => {
    const { store, objects, clock } = await tenDays();
    const [key] = keysOf(objects).filter((one) => one.includes(`${idOf(2)}/base.tar`));
    await store.remove([key as string]);
    await store.create(`${PREFIX}backups/${idOf(20)}/base.tar.0000`, contentOf(Buffer.from('x')));
    const young = await expire(store, { redundancy: 9 });
    expect(young.backups.map((b) => b.id)).toEqual([]);
    clock.now += DAY;
    const old = await expire(store, { redundancy: 2 });
    expect(old.backups.map((b) => b.id)).toContain(idOf(20));
    expect(old.backups.map((b) => b.id)).toContain(idOf(2));
    expect(backupsOf(objects)).toEqual([8, 9].map((n) => idOf(n)));
  });

  it('leaves what is pinned, and what a restore reads', async () => {
    const { store, objects } = await tenDays();
    expect(await keepInArea(areaOf(store), idOf(1))).toBe(true);
    expect(await keepInArea(areaOf(store), idOf(1))).toBe(false);
    const lease = await holdLease(areaOf(store), {
      ...{ id: 'r', kind: 'restore' },
      needs: { backups: [idOf(7)], wal: [{ timeline: 1, lsn: (35n << 20n) as never }] },
    });
    await expire(store, { redundancy: 1 });
    expect(backupsOf(objects)).toEqual([1, 7, 9].map((n) => idOf(n)));
    expect(walOf(objects).slice(0, 3)).toEqual(['05', '23', '24']);
    await lease.release();
    expect(await keepInArea(areaOf(store), idOf(1), { remove: true })).toBe(true);
    await expire(store, { redundancy: 1 });
    expect(backupsOf(objects)).toEqual([idOf(9)]);
    await expect(keepInArea(areaOf(store), idOf(1))).rejects.toThrow('no backup');
  });

  it('keeps all of a backup whose record a lock holds, and tells', async () => {
    const { store, objects } = await tenDays();
    const remove = store.remove.bind(store);
    const locked = (key: string) =>
      /backups\/.*(00000[45])\/backup.json/.test(key) || key.endsWith('0A');
    store.remove = async (keys, options) => {
      const free = keys.filter((key) => !locked(key));
      const done = await remove(free, options);
      return { removed: done.removed, retained: keys.filter(locked) };
    };
    const result = await expire(store, { redundancy: 1 });
    expect(result.retained.filter((key) => key.includes('backup.json'))).toHaveLength(2);
    expect(backupsOf(objects)).toEqual([4, 5, 9].map((n) => idOf(n)));
    // What they need, and all behind the first segment that is locked.
    expect(walOf(objects)).toEqual(expect.arrayContaining(['0A', '14', '19', '2D']));
    expect(walOf(objects)).not.toContain('09');
  });

  it('leaves a branch for as long as the window has commits of it, and all histories', async () => {
    const { store, objects, clock } = await tenDays();
    await putHistory(store, 2, '1\t0/3180000\tno recovery target specified\n');
    await putWal(store, 2, 49, 55);
    clock.now += 5 * DAY;
    await putBackup(store, idOf(21), 54, { timeline: 2 });
    clock.now += DAY;
    await expire(store, { window: 3 * DAY });
    expect(backupsOf(objects)).toEqual([idOf(9), idOf(21)]);
    clock.now += 3 * DAY;
    await expire(store, { window: 3 * DAY });
    expect(backupsOf(objects)).toEqual([idOf(21)]);
    expect(walOf(objects)).toEqual(['36']);
    expect(keysOf(objects)).toContain(`${PREFIX}history/00000002.history`);
  });

  it.each([false, true])('goes on after a death at any call, the call done: %s', async (done) => {
    for (let at = 1; ; at++) {
      const { store, objects, clock } = await daysOf(6);
      let calls = 0;
      let die = (): void => {};
      const dead = new Promise<void>((resolve) => {
        die = resolve;
      });
      const dying: MemoryStore = new MemoryStore({
        objects,
        faults: (): MemoryFault | undefined => {
          calls += 1;
          if (calls < at) return undefined;
          die();
          if (calls === at && done) return { kind: 'stall', done: true };
          dying.crash();
          return undefined;
        },
      });
      const ended = await Promise.race([expire(dying, { window: 3 * DAY }), dead]);
      // What is listed is whole, whenever it ended.
      for (const id of backupsOf(objects)) {
        const count = keysOf(objects).filter((key) => key.includes(`backups/${id}/`)).length;
        expect(count, `${at}`).toBe(3);
      }
      clock.now += 3_600_001;
      await expire(store, { window: 3 * DAY, timing: IMPATIENT });
      expect(backupsOf(objects), `${at}`).toEqual([3, 4, 5].map((n) => idOf(n)));
      expect(walOf(objects)[0]).toBe('0F');
      expect(keysOf(objects).filter((key) => /lease/.test(key))).toEqual([]);
      if (ended) return;
    }
  });
});
