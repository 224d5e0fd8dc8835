import { expect, test } from 'vitest';
import { backupKey } from '../../src/archive/backups/keys.js';
import { readLeases } from '../../src/archive/backups/lease.js';
import type { BackupParent } from '../../src/backup/parent.js';
import { CorruptObjectError, NoIncrementalError } from '../../src/errors.js';
import type { Lsn } from '../../src/lsn.js';
import { MemoryStore } from '../../src/store/memory.js';
import type { ObjectStore } from '../../src/store/store.js';
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
