import { expect, test } from 'vitest';
import { backupKey } from '../../src/archive/backups/keys.js';
import { readLeases } from '../../src/archive/backups/lease.js';
import { type BackupParent, findParent } from '../../src/backup/parent.js';
import type { BackupSource } from '../../src/backup/source.js';
import { CorruptObjectError, NoIncrementalError } from '../../src/errors.js';
import type { Lsn } from '../../src/lsn.js';
import { MemoryStore } from '../../src/store/memory.js';
import type { ObjectStore } from '../../src/store/store.js';
import { rootHistory, type TimelineHistory } from '../../src/wal/timeline.js';
import { storeBackup, tarOf } from '../support/stored-backup.js';
import { backUp, type FakeBackup, FILES, LABEL, SYSTEM, WHOLE } from './fake-server.js';

const IDS = ['20261127T201500F-3fa91c', '20261127T211500I-3fa91d'] as const;

/** A full backup and an incremental one in a store, as what the next is based on. */
async function parentIn(store: ObjectStore): Promise<BackupParent> {
  const points = [0x1000028n, 0x1800028n].map((lsn) => ({
    ...{ lsn: lsn as Lsn, timeline: 1, time: '2026-11-27T20:15:00.000Z' },
  }));
  const [full, last] = [0, 1].map((n) =>
    storeBackup({
      ...{ store, id: IDS[n] as string },
      tars: [{ name: 'base.tar', bytes: tarOf([{ name: 'PG_VERSION', content: '17\n' }]) }],
      record: {
        ...{ systemId: SYSTEM, start: points[n]!, end: points[n]! },
        ...(n === 0 ? {} : { parent: IDS[0], incrementalFrom: points[0]! }),
      },
    }),
  );
  return { chain: [await last!, await full!], manifest: Buffer.from('the manifest') };
}

/** What a server sends that was told to send what changed since a point. */
function incremental(from: string, timeline = 1): FakeBackup {
  const lines = `INCREMENTAL FROM LSN: ${from}\nINCREMENTAL FROM TLI: ${timeline}\n`;
  const label = { name: 'backup_label', content: Buffer.from(LABEL + lines) };
  const changed = { name: 'base/1/INCREMENTAL.1259', content: Buffer.alloc(4000, 'x') };
  const files = [label, changed, ...FILES.slice(1)];
  return { tars: [{ ...WHOLE.tars[0]! }, { name: 'base.tar', files }] };
}

const RIGHT = '0/1800028';
const newStore = () => new MemoryStore();
const keysIn = async (store: ObjectStore, prefix = '') => {
  const keys: string[] = [];
  for await (const { key } of store.list(prefix)) keys.push(key);
  return keys;
};

test('an incremental backup uploads the manifest, and its lease holds the whole chain', async () => {
  const store = newStore();
  const parent = await parentIn(store);
  const seen: unknown[] = [];
  const area = { place: 'memory:', store, prefix: '', close: async () => {} };
  const holds = async () => (await readLeases(area)).map((lease) => lease.needs?.backups);
  const { id, record } = await backUp(
    store,
    {
      ...incremental(RIGHT),
      uploaded: async (manifest) => void seen.push(`${manifest}`, await holds()),
      asked: (options) => seen.push(options.incremental),
    },
    { parent },
  );
  expect(seen).toEqual(['the manifest', [[IDS[1], IDS[0]]], true]);
  expect(id).toMatch(/^\d{8}T\d{6}I-/);
  const at = { lsn: 0x1800028n, timeline: 1 };
  expect(record).toMatchObject({ parent: IDS[1], incrementalFrom: at });
  expect(await holds()).toEqual([]);
});

test('a backup that is based on something else ends with its label', async () => {
  for (const [backup, isBased] of [
    [incremental('0/1000028'), true],
    [incremental(RIGHT, 2), true],
    [WHOLE, true],
    [incremental(RIGHT), false],
  ] as const) {
    const store = newStore();
    const parent = await parentIn(store);
    const before = await keysIn(store, 'backups/');
    const failed = backUp(store, backup, isBased ? { parent } : {});
    await expect(failed).rejects.toBeInstanceOf(CorruptObjectError);
    await expect(failed).rejects.toThrow(/the server sent (no|an|another) /);
    expect(await keysIn(store, 'backups/')).toEqual(before);
  }
});

test('of the backups that the server comes from the newest is chosen, with its chain', async () => {
  const store = newStore();
  const [last, full] = (await parentIn(store)).chain;
  const area = { place: 'memory:', store, prefix: '', close: async () => {} };
  const find = (
    which: string,
    given: { server?: TimelineHistory; stored?: TimelineHistory } = {},
  ) => {
    const { server = rootHistory(1), stored } = given;
    const history = async () => (stored ? { state: 'good', history: stored } : { state: 'absent' });
    const source = {
      ...{ area, physical: { serverVersion: 170_010 } },
      ...{ archive: { history }, facts: { summarizeWal: true } },
      state: { systemId: SYSTEM, timeline: server.timeline, history: server },
    } as unknown as BackupSource;
    // Found and held is the chain; the manifest of these is none.
    return findParent(source, which, {}, undefined).catch((e: Error) => e.message);
  };
  const unread = (id: string) => expect.stringContaining(`backups/${id}/`);
  expect(await find('last')).toEqual(unread(last.id));
  expect(await find('full')).toEqual(unread(full!.id));
  expect(await find(full!.id)).toEqual(unread(full!.id));
  const at = (timeline: number, lsn: bigint): TimelineHistory => ({
    ...{ timeline, ancestors: [{ timeline: 1, end: lsn as Lsn, reason: '' }] },
  });
  // It left the timeline before the last one was taken, or both of them.
  expect(await find('last', { server: at(2, 0x1700000n) })).toEqual(unread(full!.id));
  expect(await find('last', { server: at(2, 0x42n) })).toMatch(
    /^there is no backup that it can be based on: backup .* not in the history of the server/,
  );
  expect(await find(last.id, { server: at(2, 0x1700000n) })).toMatch(/not in the history/);

  // One of another timeline 2, which the archive has the history of.
  const point = { lsn: 0x1a00028n as Lsn, timeline: 2, time: '2026-11-27T21:15:00.000Z' };
  const third = await storeBackup({
    ...{ store, id: '20261127T221500F-3fa91e', tars: [] },
    record: { systemId: SYSTEM, start: point, end: point },
  });
  const own = at(2, 0x1900000n);
  expect(await find('last', { server: own, stored: own })).toEqual(unread(third.id));
  expect(await find('last', { server: own })).toEqual(unread(third.id));
  const later = {
    ...own,
    timeline: 3,
    ancestors: [...own.ancestors, { ...own.ancestors[0]!, timeline: 2, end: 0x1b00000n as Lsn }],
  };
  expect(await find('last', { server: later, stored: own })).toEqual(unread(third.id));
  expect(await find('last', { server: own, stored: at(2, 0x1940000n) })).toBe(
    `backup ${third.id} was taken on another timeline 2 than that of the server`,
  );
});

test('what is removed before it is held is nothing to be based on', async () => {
  const store = newStore();
  const parent = await parentIn(store);
  await store.remove([backupKey('', IDS[0], 'backup.json')]);
  const before = await keysIn(store);
  const uploaded = () => expect.unreachable();
  const failed = backUp(store, { ...incremental(RIGHT), uploaded }, { parent });
  await expect(failed).rejects.toBeInstanceOf(NoIncrementalError);
  await expect(failed).rejects.toThrow(`backup ${IDS[0]} was removed`);
  expect(await keysIn(store)).toEqual(before);
});
