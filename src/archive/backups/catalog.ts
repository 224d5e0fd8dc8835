import { type BackupRecord, isBackupId, parseBackupRecord } from '../../base/backup-record.js';
import { CorruptObjectError, type WalkeepError } from '../../errors.js';
import { readWhole } from '../../store/read-whole.js';
import type { BackupArea } from './area.js';
import { BACKUPS, backupKey, KEEP, RECORD } from './keys.js';

/** What was found below `backups/` under one ID. */
export interface StoredBackup {
  id: string;
  /** Absent: it was never finished, or is still running. */
  record?: BackupRecord;
  /** Why there is no `record` though there is its object. */
  problem?: WalkeepError;
  /** Keys of all its objects, with sizes as they are stored. */
  objects: { key: string; size: number; modified: Date }[];
  /** Not to be expired. */
  kept: boolean;
}

/**
 * All base backups of a place, complete or not, in the order of their IDs. One LIST, and a GET for
 * each complete one.
 * @throws StoreUncertainError, StoreAccessError
 */
export async function readBackups(
  { store, prefix }: BackupArea,
  signal?: AbortSignal,
): Promise<StoredBackup[]> {
  const found = new Map<string, StoredBackup>();
  for await (const { key, size, modified } of store.list(`${prefix}${BACKUPS}`, { signal })) {
    const id = key.slice(prefix.length + BACKUPS.length).split('/', 1)[0] as string;
    if (!isBackupId(id)) continue;
    const backup = found.get(id) ?? { id, objects: [], kept: false };
    backup.objects.push({ key, size, modified });
    found.set(id, backup);
  }
  for await (const { key } of store.list(`${prefix}${KEEP}`, { signal })) {
    const backup = found.get(key.slice(prefix.length + KEEP.length));
    if (backup) backup.kept = true;
  }
  for (const backup of found.values()) {
    const key = backupKey(prefix, backup.id, RECORD);
    if (backup.objects.some((object) => object.key === key)) {
      Object.assign(backup, await readRecord({ store, prefix }, backup.id, signal));
    }
  }
  return [...found.values()];
}

/** Neither: it is not there. A damaged one is a problem, an answer that did not come throws. */
export async function readRecord(
  { store, prefix }: Pick<BackupArea, 'store' | 'prefix'>,
  id: string,
  signal?: AbortSignal,
): Promise<{ record?: BackupRecord; problem?: WalkeepError }> {
  const key = backupKey(prefix, id, RECORD);
  try {
    const parse = (bytes: Buffer) => parseBackupRecord(bytes, key);
    const record = await readWhole(store, key, parse, { signal });
    if (!record) return {};
    if (record.id !== id) throw new CorruptObjectError(`"${key}" is of backup ${record.id}`);
    return { record };
  } catch (e) {
    if (e instanceof CorruptObjectError) return { problem: e };
    throw e;
  }
}
