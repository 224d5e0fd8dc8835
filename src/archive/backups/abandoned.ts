import { StoreAccessError, StoreUncertainError } from '../../errors.js';
import { isProvenDead, ownIdentity, type ProcessIdentity } from '../../files/process-identity.js';
import { readWhole } from '../../store/read-whole.js';
import type { BackupArea } from './area.js';
import type { StoredBackup } from './catalog.js';
import { backupKey, CLAIM } from './keys.js';
import type { RunningLease } from './lease.js';

/**
 * Milliseconds, by the clock of the place, without a lease and with nothing stored, after which one
 * that is not complete is not worked on any more: far more than a lease lasts.
 */
export const ABANDONED = 3_600_000;

/** Bytes of a claim, at most. */
const MOST_CLAIM = 64 * 1024;

/** Only of this boot of this machine that can be told: of others, and of what cannot be read, the age decides. */
export async function isWriterDead(
  area: BackupArea,
  id: string,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  const writer = await readClaim(area, id, signal);
  return writer !== undefined && isProvenDead(writer, await ownIdentity());
}

/** Who began a backup; undefined where nothing says so that can be read. @throws StoreUncertainError */
export async function readClaim(
  { store, prefix }: BackupArea,
  id: string,
  signal: AbortSignal | undefined,
): Promise<ProcessIdentity | undefined> {
  const key = backupKey(prefix, id, CLAIM);
  try {
    const text = await readWhole(store, key, String, { signal, limit: MOST_CLAIM });
    if (text === undefined) return undefined;
    const { format, writer } = JSON.parse(text) as { format: number; writer: ProcessIdentity };
    return format === 1 && typeof writer.pid === 'number' ? writer : undefined;
  } catch (e) {
    if (e instanceof StoreUncertainError || e instanceof StoreAccessError) throw e;
    signal?.throwIfAborted();
    return undefined;
  }
}

/**
 * Those that are not complete, that nobody holds a lease of, and whose writer is proven dead: what is
 * left of a backup, or of its removal, that was killed on this machine.
 */
export async function abandonedOf(
  area: BackupArea,
  backups: readonly StoredBackup[],
  leases: readonly RunningLease[],
  signal?: AbortSignal,
): Promise<Set<string>> {
  const held = new Set(leases.map((lease) => lease.id));
  const found = new Set<string>();
  for (const { id, record, problem } of backups) {
    if (record || problem || held.has(id)) continue;
    if (await isWriterDead(area, id, signal)) found.add(id);
  }
  return found;
}
