import type { BackupArea } from '../../src/archive/backups/area.js';
import { StoreArchive } from '../../src/archive/places/store-archive.js';
import { systemKey } from '../../src/archive/shipping/systems.js';
import { ARCHIVE_KEY, historyKey, segmentKey } from '../../src/archive/store-keys.js';
import type { BackupRecord } from '../../src/base/backup-record.js';
import type { Lsn } from '../../src/lsn.js';
import { contentOf } from '../../src/store/content.js';
import type { ObjectStore } from '../../src/store/store.js';
import { segmentFileName } from '../../src/wal/file-name.js';
import { storeBackup, tarOf } from '../support/stored-backup.js';

export const SYSTEM = 7_000_000_000_000_000_001n;
export const SEGMENT = 1 << 20;
export const PREFIX = `systems/${SYSTEM}/`;

const json = (value: unknown) => contentOf(Buffer.from(JSON.stringify(value)));

/** Makes an archive of a store. */
export async function beginArchive(store: ObjectStore): Promise<void> {
  await store.create(ARCHIVE_KEY, json({ format: 1, archiveId: 'a' }));
  await store.create(systemKey(SYSTEM), json({ format: 1, segmentSize: SEGMENT }));
}

/** Segments whose content nobody reads. */
export async function putWal(
  store: ObjectStore,
  timeline: number,
  first: number,
  behind: number,
): Promise<void> {
  for (let n = first; n < behind; n++) {
    const name = segmentFileName(timeline, BigInt(n), SEGMENT);
    await store.create(segmentKey(SYSTEM, name), contentOf(Buffer.from(name)));
  }
}

export async function putHistory(store: ObjectStore, timeline: number, text: string) {
  await store.create(historyKey(SYSTEM, timeline), contentOf(Buffer.from(text)));
}

/** A whole backup that needs the WAL of one segment. */
export function putBackup(
  store: ObjectStore,
  id: string,
  segment: number,
  { timeline = 1, ...record }: Partial<BackupRecord> & { timeline?: number } = {},
): Promise<BackupRecord> {
  const start = (BigInt(segment) * BigInt(SEGMENT) + 40n) as Lsn;
  const end = (start + 1000n) as Lsn;
  const point = { timeline, time: '2026-11-27T20:15:00.000Z' };
  return storeBackup({
    ...{ store, prefix: PREFIX, id, codec: 'none' },
    tars: [{ name: 'base.tar', bytes: tarOf([{ name: 'PG_VERSION', content: '18\n' }]) }],
    record: {
      ...{ systemId: SYSTEM, segmentSize: SEGMENT },
      ...{ start: { ...point, lsn: start }, end: { ...point, lsn: end } },
      walRanges: [{ timeline, start, end }],
      ...record,
    },
  });
}

export function areaOf(store: ObjectStore): BackupArea {
  return { place: 'memory:', store, prefix: PREFIX, close: async () => {} };
}

export function archiveOf(store: ObjectStore): StoreArchive {
  return new StoreArchive(store, SYSTEM);
}

/** `F` full, `I` incremental; unlike another by its number. */
export function idOf(number: number, kind: 'F' | 'I' = 'F'): string {
  return `20261101T0000${String(number).padStart(2, '0')}${kind}-00000${number % 10}`;
}
