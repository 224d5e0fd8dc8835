import type { BackupArea } from '../archive/backups/area.js';
import { backupKey, keepKey, RECORD } from '../archive/backups/keys.js';
import { endDeadLeases, type Lease } from '../archive/backups/lease.js';
import { type BackupRecord, backupRecordBytes } from '../base/backup-record.js';
import { CorruptObjectError, StoreUncertainError, WalkeepError } from '../errors.js';
import { contentOf } from '../store/content.js';
import { findLeftovers, keysOf, removeUnfinished } from './claim.js';
import { createOwn, surely } from './objects.js';

export interface CommitOptions {
  lease: Lease;
  /** Not to be expired. */
  keep: boolean | undefined;
  signal: AbortSignal;
  /** From here on nobody but the place knows whether the backup exists. */
  onCommitting(): void;
}

/** The record comes last: with it the backup exists. @throws CorruptObjectError, as `createOwn` */
export async function commitBackup(
  area: BackupArea,
  record: BackupRecord,
  { lease, keep, signal, onCommitting }: CommitOptions,
): Promise<void> {
  const { prefix, store } = area;
  const { id } = record;
  const there = await surely(() => keysOf(area, id, signal), signal);
  const lost = record.objects.find(
    ({ name, size }) => there.get(backupKey(prefix, id, name)) !== size,
  );
  if (lost) {
    const key = backupKey(prefix, id, lost.name);
    throw new CorruptObjectError(`"${key}" is not in "${store.place}" any more`, {
      key,
      hint: 'Something else removes objects there, or took this backup for one that was given up.',
    });
  }
  if (keep) {
    await createOwn(area, keepKey(prefix, id), contentOf(Buffer.from('\n')), signal);
  }
  const content = contentOf(backupRecordBytes(record));
  await surely(() => lease.confirm(), signal);
  signal.throwIfAborted();
  onCommitting();
  try {
    await createOwn(area, backupKey(prefix, id, RECORD), content, undefined);
  } catch (cause) {
    if (!(cause instanceof StoreUncertainError)) throw cause;
    throw new StoreUncertainError(`whether backup ${id} exists is not known: ${cause.message}`, {
      cause,
      key: backupKey(prefix, id, RECORD),
      hint: '"walkeep backups" tells.',
    });
  }
}

/** What others left behind; that it cannot be removed is no reason to have no backup. */
export async function removeLeftovers(
  area: BackupArea,
  lease: Lease,
  signal: AbortSignal,
  warn: (warning: { code: string; message: string }) => void,
): Promise<string[]> {
  const cleaned: string[] = [];
  let at = 'what unfinished backups left';
  try {
    for (const leftover of await findLeftovers(area, lease.id, signal)) {
      at = `unfinished backup ${leftover.id}`;
      if (await removeUnfinished(area, leftover, signal)) cleaned.push(leftover.id);
    }
    at = 'leases that nobody holds any more';
    await endDeadLeases(area, { now: await lease.time(), signal });
  } catch (e) {
    signal.throwIfAborted();
    if (!(e instanceof WalkeepError)) throw e;
    const { code, message } = e;
    warn({ code, message: `could not remove ${at}: ${message}` });
  }
  return cleaned;
}

/** Of one that failed before it was committed. */
export async function leaveNothing(area: BackupArea, id: string): Promise<void> {
  try {
    const keys = await keysOf(area, id);
    await removeUnfinished(area, { id, keys: [...keys.keys()], lease: [] });
  } catch {
    // The next backup does it. What failed first is what is told.
  }
}
