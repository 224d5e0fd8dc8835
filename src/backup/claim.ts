import { randomBytes } from 'node:crypto';
import { ABANDONED, isWriterDead } from '../archive/backups/abandoned.js';
import type { BackupArea } from '../archive/backups/area.js';
import { BACKUPS, backupKey, CLAIM, keepKey, LEASE, RECORD } from '../archive/backups/keys.js';
import { type BackupObject, backupId, isBackupId } from '../base/backup-record.js';
import { StoreConflictError } from '../errors.js';
import { ownIdentity } from '../files/process-identity.js';
import { contentOf } from '../store/content.js';
import type { Entry } from '../store/store.js';
import { createOwn } from './objects.js';

/** Version of what `claim.json` has. */
const FORMAT = 1;
/** IDs that somebody else may have by chance. */
const MOST_IDS = 10;
/**
 * Makes an ID one's own, before anything else is stored below it.
 * @returns also its object, for the record
 * @throws as `createOwn`
 */
export async function claimBackup(
  area: BackupArea,
  kind: 'F' | 'I',
  signal?: AbortSignal,
): Promise<{ id: string; claim: BackupObject }> {
  const said = { format: FORMAT, writer: await ownIdentity() };
  const content = contentOf(Buffer.from(`${JSON.stringify(said)}\n`));
  const { size, sha256 } = content;
  for (let tries = 1; ; tries++) {
    const id = backupId(new Date(), kind, randomBytes(3).toString('hex'));
    try {
      await createOwn(area, backupKey(area.prefix, id, CLAIM), content, signal);
      return { id, claim: { name: CLAIM, size, sha256 } };
    } catch (e) {
      if (!(e instanceof StoreConflictError) || tries === MOST_IDS) throw e;
    }
  }
}

/** What a run left behind that was killed, or that failed where it could not remove it. */
export interface Leftover {
  id: string;
  keys: string[];
  /** Of its lease. */
  lease: string[];
}

/**
 * Backups that were begun, are not complete, and that nobody works on any more.
 * @param own the one that is claimed just now: its claim tells the time of the store
 */
export async function findLeftovers(
  area: BackupArea,
  own: string,
  signal?: AbortSignal,
): Promise<Leftover[]> {
  const { prefix } = area;
  const begun = await grouped(area, `${prefix}${BACKUPS}`, signal);
  const claim = backupKey(prefix, own, CLAIM);
  const now = begun
    .get(own)
    ?.entries.find(({ key }) => key === claim)
    ?.modified.getTime();
  for (const [id, { entries }] of begun) {
    const isComplete = entries.some(({ key }) => key === backupKey(prefix, id, RECORD));
    if (id === own || isComplete || !isBackupId(id)) begun.delete(id);
  }
  if (begun.size === 0) return [];
  const leases = await grouped(area, `${prefix}${LEASE}`, signal);
  const found: Leftover[] = [];
  for (const [id, { entries, newest }] of begun) {
    const lease = leases.get(id);
    const idle = (now ?? 0) - Math.max(newest, lease?.newest ?? 0);
    if (idle <= ABANDONED && !(await isWriterDead(area, id, signal))) continue;
    const keyOf = ({ key }: Entry): string => key;
    found.push({ id, keys: entries.map(keyOf), lease: lease?.entries.map(keyOf) ?? [] });
  }
  return found;
}

/** What lies below a prefix, by the first part of the keys behind it. */
async function grouped({ store }: BackupArea, prefix: string, signal: AbortSignal | undefined) {
  const groups = new Map<string, { entries: Entry[]; newest: number }>();
  for await (const entry of store.list(prefix, { signal })) {
    const id = entry.key.slice(prefix.length).split('/', 1)[0] as string;
    const group = groups.get(id) ?? { entries: [], newest: 0 };
    group.entries.push(entry);
    group.newest = Math.max(group.newest, entry.modified.getTime());
    groups.set(id, group);
  }
  return groups;
}

/**
 * Removes what is left of an unfinished backup: its claim last, so that a removal that is broken off
 * is gone on with by the next. First its lease, so that a process that wakes up hears of it.
 * @returns false: it has woken up, or it is complete, and nothing was removed
 */
export async function removeUnfinished(
  { store, prefix }: BackupArea,
  { id, keys, lease }: Leftover,
  signal?: AbortSignal,
): Promise<boolean> {
  for (const key of lease) await store.remove([key], { signal });
  if (lease.length > 0) {
    for await (const _ of store.list(`${prefix}${LEASE}${id}/`, { signal })) return false;
  }
  // It may have been completed since it was listed: that its writer is gone says so of a whole one too.
  if (await store.head(backupKey(prefix, id, RECORD), { signal })) return false;
  const claim = backupKey(prefix, id, CLAIM);
  await store.remove([...keys.filter((key) => key !== claim), keepKey(prefix, id)], { signal });
  await store.remove([claim], { signal, prune: backupKey(prefix, id) });
  return true;
}

/** Keys below an ID, as the store has them now. */
export async function keysOf(
  { store, prefix }: BackupArea,
  id: string,
  signal?: AbortSignal,
): Promise<Map<string, number>> {
  const keys = new Map<string, number>();
  for await (const { key, size } of store.list(backupKey(prefix, id), { signal })) {
    keys.set(key, size);
  }
  return keys;
}
