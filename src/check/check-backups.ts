import { openBackupArea } from '../archive/backups/area.js';
import { readBackups } from '../archive/backups/catalog.js';
import { readLeases } from '../archive/backups/lease.js';
import { judgeBackups, type PlacedBackup } from '../archive/backups/state.js';
import type { Catalog } from '../archive/catalog.js';
import { windowOf } from '../archive/targets/window.js';
import type { BackupRecord } from '../base/backup-record.js';
import { WalkeepError } from '../errors.js';
import { formatSeconds } from '../units.js';
import { type CheckResult, judge } from './result.js';

/** What is asked of the base backups. */
export interface BackupDemands {
  /** Milliseconds that the last complete one may be old. */
  backupAge?: number | undefined;
  /** Milliseconds before now of which every moment is to be restorable. */
  window?: number | undefined;
}

const TAKE = 'Take one with "walkeep backup".';

/** Of the base backups of a place: how old the last one is, and since when all can be restored to. */
export async function checkBackups(
  place: string,
  catalog: Catalog,
  demands: BackupDemands,
): Promise<CheckResult[]> {
  const { fail } = judge('backups');
  const isAsked = demands.backupAge !== undefined || demands.window !== undefined;
  // Nothing was received yet: there is more to say than that.
  if (catalog.systemId === undefined && !isAsked) return [];
  try {
    const area = await openBackupArea(place, { systemId: catalog.systemId });
    try {
      const now = new Date();
      const leases = await readLeases(area, { now });
      const backups = judgeBackups(await readBackups(area), { leases, now });
      if (backups.length === 0 && !isAsked) return [];
      return await results(backups, catalog, demands, now.getTime());
    } finally {
      await area.close();
    }
  } catch (error) {
    if (!(error instanceof WalkeepError)) throw error;
    return [fail(error.message, error.hint ?? 'Look at what it names.')];
  }
}

async function results(
  backups: readonly PlacedBackup[],
  catalog: Catalog,
  { backupAge, window }: BackupDemands,
  now: number,
): Promise<CheckResult[]> {
  const { ok, warn, fail } = judge('backups');
  const found = backups.flatMap((b) =>
    b.state === 'damaged'
      ? [warn(`backup ${b.id} is damaged: ${b.problem}`, 'See what "walkeep verify" says of it.')]
      : [],
  );
  const complete = backups
    .flatMap((b) => (b.state === 'complete' && b.found.record ? [b.found.record] : []))
    .sort((a, b) => endOf(a) - endOf(b));
  const last = complete.at(-1);
  if (!last) return [...found, fail('there is no complete base backup', TAKE)];
  const age = now - endOf(last);
  const text = `the last one, ${last.id}, ended ${formatSeconds(Math.max(0, age) / 1000)} ago`;
  if (backupAge !== undefined && age > backupAge) {
    const allowed = formatSeconds(backupAge / 1000);
    found.push(warn(`${text}; it may be ${allowed} old`, `See why none came. ${TAKE}`));
  } else found.push(ok(text));
  found.push(await windowResult(complete, catalog, window, now));
  return found;
}

/** Since when there is a backup, and WAL without a hole behind it. */
async function windowResult(
  complete: readonly BackupRecord[],
  catalog: Catalog,
  window: number | undefined,
  now: number,
): Promise<CheckResult> {
  const { ok, warn, fail } = judge('window');
  let why = '';
  for (const record of complete) {
    const windows = await windowOf(catalog, record);
    const reached = windows.find(({ ends, to }) => ends === 'archive' && to !== undefined);
    if (!reached) {
      why = windows[0]?.why ?? 'no WAL goes on from it';
      continue;
    }
    const span = now - endOf(record);
    const since = `${new Date(endOf(record)).toISOString().slice(0, 16).replace('T', ' ')} UTC`;
    const text = `every moment since ${since} can be restored to`;
    if (window === undefined || span >= window) return ok(text);
    const wanted = formatSeconds(window / 1000);
    return warn(
      `${text}: ${formatSeconds(span / 1000)} instead of ${wanted}`,
      'If backups are younger than that, wait; else see what expires them.',
    );
  }
  return fail(`no backup leads to the end of the archive: ${why}`, TAKE);
}

function endOf({ end }: BackupRecord): number {
  return Date.parse(end.time);
}
