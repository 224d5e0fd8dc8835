import { openBackupArea } from '../archive/backups/area.js';
import { readRecord } from '../archive/backups/catalog.js';
import { endDeadLeases, holdLease, type Lease } from '../archive/backups/lease.js';
import { ArchiveBusyError, UnreachableTargetError, WalkeepError } from '../errors.js';
import type { Choice } from './choose.js';

/** While it is held nothing that the restore reads is removed. */
export interface Protection {
  lease: Lease | undefined;
  /** Why there is none: where nothing may be written, objects can vanish, which is then told. */
  problem: string | undefined;
  release(): Promise<void>;
}

/**
 * Keeps expires away from a backup and its WAL, where that can be.
 * @throws ArchiveBusyError while an expire is about to remove it; UnreachableTargetError if one has
 */
export async function protect(
  { record, area, links }: Choice,
  signal: AbortSignal | undefined,
  onWait?: (expire: string) => void,
): Promise<Protection> {
  const none = (problem: string): Protection => ({
    ...{ lease: undefined, problem },
    release: async () => {},
  });
  const { systemId, id, start } = record;
  let held: Awaited<ReturnType<typeof openBackupArea>> | undefined;
  let lease: Lease | undefined;
  const release = async (): Promise<void> => {
    try {
      await lease?.release();
    } finally {
      await held?.close();
    }
  };
  try {
    held = await openBackupArea(area.place, { systemId, writable: true, signal });
    const backups = links.filter((link) => link.area === area).map((link) => link.record.id);
    const needs = { backups, wal: [{ timeline: start.timeline, lsn: start.lsn }] };
    lease = await holdLease(held, { id, kind: 'restore', needs, signal, onWait });
    let isThere = true;
    for (const one of backups) {
      if (!(await readRecord(held, one, signal)).record) isThere = false;
    }
    if (isThere) {
      // What killed ones left; that it cannot be removed is no reason to restore nothing.
      await endDeadLeases(held, { now: await lease.time(), signal }).catch((e) => {
        if (signal?.aborted || !(e instanceof WalkeepError)) throw e;
      });
      return { lease, problem: undefined, release };
    }
  } catch (e) {
    // It would keep every expire away until another one has watched it for minutes.
    await release().catch(() => {});
    signal?.throwIfAborted();
    if (!(e instanceof WalkeepError) || e instanceof ArchiveBusyError) throw e;
    return none(e.message);
  }
  await release();
  throw new UnreachableTargetError(`backup "${id}" was removed a moment ago`, {
    hint: 'Run it again: it chooses among those that are there.',
  });
}
