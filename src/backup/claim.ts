import { randomBytes } from 'node:crypto';
import type { BackupArea } from '../archive/backups/area.js';
import { BACKUPS, backupKey, CLAIM, keepKey, LEASE, RECORD } from '../archive/backups/keys.js';
import { backupId, isBackupId } from '../base/backup-record.js';
import { StoreUncertainError } from '../errors.js';
import { liveness, ownIdentity, type ProcessIdentity } from '../files/process-identity.js';
import { bytesOf, contentOf } from '../store/content.js';
import { createOwn } from './objects.js';

/** Version of what `claim.json` has. */
const FORMAT = 1;
/** IDs that somebody else may have by chance. */
const MOST_IDS = 10;
/** Bytes of a claim, at most. */
const MOST_CLAIM = 64 * 1024;

/**
 * Milliseconds of the store's time for which nothing was stored, and no lease renewed, of a backup
 * that nobody works on any more: far more than a lease lasts.
 */
export const ABANDONED = 3_600_000;

/** Makes an ID one's own, before anything else is stored below it. @throws as `createOwn` */
export async function claimBackup(
  area: BackupArea,
  kind: 'F' | 'I',
  signal?: AbortSignal,
): Promise<string> {
  const claim = { format: FORMAT, writer: await ownIdentity() };
  const content = contentOf(Buffer.from(`${JSON.stringify(claim)}\n`));
  for (let tries = 1; ; tries++) {
    const id = backupId(new Date(), kind, randomBytes(3).toString('hex'));
    try {
      await createOwn(area, backupKey(area.prefix, id, CLAIM), content, signal);
      return id;
    } catch (e) {
      if ((e as { code?: string }).code !== 'WK_STORE_CONFLICT' || tries === MOST_IDS) throw e;
    }
  }
}

/** What a run left behind that was killed, or that failed where it could not remove it. */
export interface Leftover {
  id: string;
  keys: string[];
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
  const { store, prefix } = area;
  const begun = new Map<string, { keys: string[]; newest: number }>();
  const complete = new Set<string>();
  let now = Number.NaN;
  for await (const { key, modified } of store.list(`${prefix}${BACKUPS}`, { signal })) {
    const [id = '', name] = key.slice(prefix.length + BACKUPS.length).split('/');
    if (!isBackupId(id)) continue;
    if (id === own && name === CLAIM) now = modified.getTime();
    if (name === RECORD) complete.add(id);
    const backup = begun.get(id) ?? { keys: [], newest: 0 };
    backup.keys.push(key);
    backup.newest = Math.max(backup.newest, modified.getTime());
    begun.set(id, backup);
  }
  for (const id of [own, ...complete]) begun.delete(id);
  if (begun.size === 0) return [];
  const leases = new Map<string, { keys: string[]; newest: number }>();
  for await (const { key, modified } of store.list(`${prefix}${LEASE}`, { signal })) {
    const id = key.slice(prefix.length + LEASE.length).split('/', 1)[0] as string;
    const lease = leases.get(id) ?? { keys: [], newest: 0 };
    lease.keys.push(key);
    lease.newest = Math.max(lease.newest, modified.getTime());
    leases.set(id, lease);
  }
  const found: Leftover[] = [];
  for (const [id, { keys, newest }] of begun) {
    const lease = leases.get(id);
    const idle = now - Math.max(newest, lease?.newest ?? 0);
    const over = idle > ABANDONED || (await isWriterDead(area, id, signal));
    if (over) found.push({ id, keys: [...keys, ...(lease?.keys ?? [])] });
  }
  return found;
}

/** Only of this machine that can be told. */
async function isWriterDead(
  { store, prefix }: BackupArea,
  id: string,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  const got = await store.get(backupKey(prefix, id, CLAIM), { signal });
  if (!got) return false;
  try {
    const text = (await bytesOf(got.body, MOST_CLAIM)).toString('utf8');
    const { writer } = JSON.parse(text) as { writer: ProcessIdentity };
    return (await liveness(writer, await ownIdentity())) === 'dead';
  } catch (e) {
    if (e instanceof StoreUncertainError) throw e;
    signal?.throwIfAborted();
    // What it says cannot be read: then its age decides.
    return false;
  }
}

/**
 * Removes what is left of an unfinished backup: its claim last, so that a removal that is broken off
 * is gone on with by the next.
 */
export async function removeUnfinished(
  { store, prefix }: BackupArea,
  { id, keys }: Leftover,
  signal?: AbortSignal,
): Promise<void> {
  const claim = backupKey(prefix, id, CLAIM);
  const others = [...keys.filter((key) => key !== claim), keepKey(prefix, id)];
  await store.remove(others, { signal });
  await store.remove([claim], { signal });
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
