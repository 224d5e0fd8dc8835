import { type AreaOptions, type BackupArea, openBackupArea } from '../archive/backups/area.js';
import { readRecord } from '../archive/backups/catalog.js';
import type { HoldTiming } from '../archive/backups/hold.js';
import { keepKey } from '../archive/backups/keys.js';
import { holdLease } from '../archive/backups/lease.js';
import { type BackupRecord, isBackupId } from '../base/backup-record.js';
import { ArchiveAccessError, UsageError } from '../errors.js';
import { contentOf } from '../store/content.js';

export interface KeepOptions {
  /** Lets it go again. */
  remove?: boolean | undefined;
  /** Of several clusters in a store, the one that is meant. */
  systemId?: AreaOptions['systemId'];
  /** Told if an expire is waited for. */
  onWait?: ((expire: string) => void) | undefined;
  signal?: AbortSignal | undefined;
  timing?: HoldTiming | undefined;
}

/**
 * Pins a backup: no expire removes it, what it is based on, and the WAL from its start to its end,
 * until it is let go again.
 * @returns false if it was so already
 * @throws UsageError if there is no such backup, CorruptObjectError if its record is damaged,
 *   ArchiveBusyError if an expire that may remove it does not end, what the place throws
 */
export async function keepBackup(
  place: string,
  id: string,
  options: KeepOptions = {},
): Promise<boolean> {
  const { systemId, signal } = options;
  const area = await openBackupArea(place, { systemId, signal });
  try {
    return await keepInArea(area, id, options);
  } finally {
    await area.close();
  }
}

/** The same of a place that is open. */
export async function keepInArea(
  area: BackupArea,
  id: string,
  options: KeepOptions = {},
): Promise<boolean> {
  const { signal, remove = false, onWait, timing } = options;
  const key = keepKey(area.prefix, id);
  if (!isBackupId(id)) throw unknown(area, id);
  if (remove) {
    if (!(await area.store.head(key, { signal }))) {
      await chainOf(area, id, signal);
      return false;
    }
    const { retained } = await area.store.remove([key], { signal });
    if (retained.length === 0) return true;
    throw new ArchiveAccessError(`a lock of the store keeps backup ${id} pinned`, { key });
  }
  const chain = await chainOf(area, id, signal);
  const { start } = chain[0] as BackupRecord;
  const needs = {
    backups: chain.map((record) => record.id),
    wal: [{ timeline: start.timeline, lsn: start.lsn }],
  };
  // While it is held no expire begins to remove it: the next one then sees the pin.
  const lease = await holdLease(area, {
    ...{ id: `keep-${id}`, kind: 'restore', needs, signal, onWait, timing },
  });
  try {
    await chainOf(area, id, signal);
    const content = contentOf(Buffer.from(`${JSON.stringify({ format: 1 })}\n`));
    const { created } = await area.store.create(key, content, { signal });
    try {
      await lease.confirm();
    } catch (e) {
      if (created) await area.store.remove([key]);
      throw e;
    }
    return created;
  } finally {
    await lease.release();
  }
}

/** The backup and all that it is based on. */
async function chainOf(
  area: BackupArea,
  id: string,
  signal: AbortSignal | undefined,
): Promise<BackupRecord[]> {
  const chain: BackupRecord[] = [];
  for (let next: string | undefined = id; next !== undefined; ) {
    const { record, problem } = await readRecord(area, next, signal);
    if (problem) throw problem;
    if (!record) throw unknown(area, next);
    if (chain.some((one) => one.id === record.id)) break;
    chain.push(record);
    next = record.parent;
  }
  return chain;
}

function unknown({ place }: BackupArea, id: string): UsageError {
  return new UsageError(`"${place}" has no backup ${id}`, {
    hint: '"walkeep backups" lists those that there are.',
  });
}
