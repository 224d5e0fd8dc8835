import { expect, test } from 'vitest';
import { StoreArchive } from '../../src/archive/places/store-archive.js';
import {
  backupHistoryKey,
  historyKey,
  partialKey,
  segmentKey,
  systemPrefix,
} from '../../src/archive/store-keys.js';
import { cleanupArchive, planCleanup } from '../../src/cleanup/cleanup.js';
import { openFileStore } from '../../src/store/file/file-store.js';
import { MemoryStore } from '../../src/store/memory.js';
import type { ObjectStore } from '../../src/store/store.js';
import { scratchDir } from '../support/scratch.js';
import { beginArchive, put } from '../support/store-archive.js';
import { SYSTEM_ID } from '../support/wal-archive.js';

const segment = (n: number, timeline = 1) =>
  `0000000${timeline}00000000${n.toString(16).toUpperCase().padStart(8, '0')}`;
const backup = (n: number) => `${segment(n)}.00000028.backup`;

/** An archive with segments 1 to 5, of some what was shipped before they were whole, and texts. */
async function fill(store: ObjectStore): Promise<void> {
  await beginArchive(store);
  const bytes = Buffer.from('x');
  for (let n = 1; n <= 5; n++) await put(store, segmentKey(SYSTEM_ID, segment(n)), bytes);
  for (const [n, end] of [
    [2, 0x200100n],
    [2, 0x200200n],
    [4, 0x400100n],
    [6, 0x600100n],
  ] as const) {
    await put(store, partialKey(SYSTEM_ID, segment(n), end), bytes);
  }
  await put(store, partialKey(SYSTEM_ID, segment(3, 2), 0x300100n), bytes);
  await put(store, segmentKey(SYSTEM_ID, segment(5, 2)), bytes);
  await put(store, historyKey(SYSTEM_ID, 2), bytes);
  for (const n of [2, 5]) await put(store, backupHistoryKey(SYSTEM_ID, backup(n)), bytes);
}

async function keys(store: ObjectStore): Promise<string[]> {
  const found: string[] = [];
  const prefix = systemPrefix(SYSTEM_ID);
  for await (const { key } of store.list(prefix)) found.push(key.slice(prefix.length));
  return found;
}

async function directory() {
  const place = scratchDir('store');
  const store = await openFileStore(place, { init: true });
  await fill(store);
  return { place, store };
}

test('removing a backup history file leaves its segment, and what is no name nothing', async () => {
  const store = new MemoryStore();
  await fill(store);
  const before = await keys(store);
  const archive = new StoreArchive(store, SYSTEM_ID);
  expect(await archive.remove([backup(2)])).toEqual({ removed: [backup(2)], retained: [] });
  await archive.remove(['00000002.history', 'other', `${segment(1)}.x`]);
  const gone = before.filter((key) => /\.(backup|history)$/.test(key) && !key.includes(segment(5)));
  expect(await keys(store)).toEqual(before.filter((key) => !gone.includes(key)));
  expect(gone).toEqual([`history/${backup(2)}`, 'history/00000002.history'].sort());
});

test('a dry run plans what a run removes, with what was shipped before it was whole', async () => {
  const { place, store } = await directory();
  const before = await keys(store);
  const plan = await planCleanup(place, segment(4));
  expect(plan.remove).toEqual([segment(1), segment(2), segment(3), `${segment(3, 2)}.partial`]);
  expect(await keys(store)).toEqual(before);
  expect(await cleanupArchive(plan)).toEqual({ removed: plan.remove, retained: [] });
  const has = (key: string) => plan.remove.some((name) => key.includes(name.slice(0, 24)));
  const left = before.filter((key) => key.startsWith('history/') || !has(key));
  expect(await keys(store)).toEqual(left);
});

test('backup history files go when asked, and the end of a timeline stays', async () => {
  const { place, store } = await directory();
  const plan = await planCleanup(place, segment(9), { cleanBackupHistory: true });
  expect(plan.remove).toContain(backup(2));
  expect(plan.remove).not.toContain(`${segment(6)}.partial`);
  await cleanupArchive(plan);
  expect(await keys(store)).toEqual([
    'history/00000002.history',
    `partial/00000001/${segment(6)}/${0x600100n.toString(16).toUpperCase().padStart(16, '0')}`,
    'system.json',
  ]);
});

test('many are removed in few requests, the oldest first', async () => {
  const store = new MemoryStore();
  await beginArchive(store);
  const names = Array.from({ length: 2500 }, (_, i) => segment(i));
  for (const name of names) await put(store, segmentKey(SYSTEM_ID, name), Buffer.from('x'));
  await put(store, partialKey(SYSTEM_ID, segment(7), 0x700100n), Buffer.from('x'));
  const asked: string[][] = [];
  const lists: string[] = [];
  const counting: ObjectStore = Object.create(store, {
    remove: {
      value: (keys: string[]) => {
        asked.push(keys);
        return store.remove(keys);
      },
    },
    list: {
      value: (prefix: string) => {
        lists.push(prefix);
        return store.list(prefix);
      },
    },
    place: { value: store.place },
    get: { value: store.get.bind(store) },
    head: { value: store.head.bind(store) },
  });
  await new StoreArchive(counting, SYSTEM_ID).remove(names);
  expect(asked.map((batch) => batch.length)).toEqual([1000, 1000, 501]);
  expect(lists).toHaveLength(1);
  const wal = asked.flat().filter((key) => key.includes('/wal/'));
  expect(wal).toEqual(names.map((name) => segmentKey(SYSTEM_ID, name)));
  expect(await keys(store)).toEqual(['system.json']);
});

test('what a store retains is told, and the rest goes', async () => {
  const store = new MemoryStore();
  await fill(store);
  const held = segmentKey(SYSTEM_ID, segment(2));
  const locked: ObjectStore = Object.create(store, {
    remove: {
      value: async (keys: string[]) => {
        const { removed } = await store.remove(keys.filter((key) => key !== held));
        return { removed, retained: keys.filter((key) => key === held) };
      },
    },
    place: { value: store.place },
    list: { value: store.list.bind(store) },
  });
  const archive = new StoreArchive(locked, SYSTEM_ID);
  const names = [segment(1), segment(2), segment(3)];
  expect(await archive.remove(names)).toEqual({
    removed: [segment(1), segment(3)],
    retained: [segment(2)],
  });
  expect((await keys(store)).filter((key) => key.startsWith('wal/00000001/'))).toEqual(
    [2, 4, 5].map((n) => `wal/00000001/${segment(n)}`),
  );
});
