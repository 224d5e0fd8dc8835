import type { HoldTiming } from '../archive/backups/hold.js';
import type { WatchedLease } from '../archive/backups/lease.js';
import type { ArchiveOptions } from '../archive/places/open-archive.js';
import { UsageError } from '../errors.js';
import type { Lsn } from '../lsn.js';
import {
  aBigint,
  aFunction,
  aName,
  aNumber,
  anObject,
  aSignal,
  aSwitch,
  aText,
  aTime,
  type Checks,
  checkOptions,
  listOf,
} from '../options.js';

/** What is to be kept of a place; window or redundancy has to be given. */
export interface ExpireOptions extends ArchiveOptions {
  /** Milliseconds before now of which every moment stays restorable. */
  window?: number | undefined;
  /** How many full backups stay, with all that is newer than the oldest of them. */
  redundancy?: number | undefined;
  /** Tells what a run removes, and removes nothing. */
  dryRun?: boolean | undefined;
  /** Where it is kept what a directory has shipped, if not in it. */
  state?: string | undefined;
  /** Told before each removal. */
  onRemove?: ((removal: ExpiredBackup | ExpiredWal) => void) | undefined;
  /** Told before it watches, for minutes, leases that gave no sign of life for long. */
  onWatch?: ((leases: WatchedLease[]) => void) | undefined;
  signal?: AbortSignal | undefined;
  /** How leases are kept; for tests. */
  timing?: HoldTiming | undefined;
}

/** A backup that is removed. */
export interface ExpiredBackup {
  kind: 'backup';
  id: string;
  why: string;
  /** When its record was there, by the clock of the place. */
  stored: Date;
  objects: number;
  /** Bytes as they are stored. */
  size: number;
}

/** Segments of a timeline that are removed, without one that stays between them. */
export interface ExpiredWal {
  kind: 'wal';
  timeline: number;
  from: Lsn;
  to: Lsn;
  segments: number;
  size: number;
}

export interface ExpireResult {
  place: string;
  /** By the clock of the place. */
  now: Date;
  /** Why nothing is removed at all. */
  nothing: string | undefined;
  /** In the order of removal. */
  backups: ExpiredBackup[];
  /** Oldest first. */
  wal: ExpiredWal[];
  /** Objects of the index of what was removed. */
  index: number;
  kept: { id: string; why: string[] }[];
  keptWal: { timeline: number; from: Lsn; to: Lsn; why: string }[];
  /** What a lock of the store holds: keys. */
  retained: string[];
  /** What made more stay than is needed. */
  notes: string[];
}

const CHECKS: Checks<ExpireOptions> = {
  window: aTime,
  redundancy: aNumber(1, 1_000_000),
  dryRun: aSwitch,
  state: aName,
  onRemove: aFunction,
  onWatch: aFunction,
  signal: aSignal,
  timing: anObject,
  systemId: aBigint,
  identityFiles: listOf(aName, 'a list of file names'),
  identityCommand: aText,
};

/** @throws UsageError */
export function checkExpireOptions(options: ExpireOptions): void {
  checkOptions('expire', options, CHECKS);
  if (options.window !== undefined || options.redundancy !== undefined) return;
  throw new UsageError('nothing says what is to be kept', {
    hint: 'Give a window, such as 7d, or how many full backups are to stay, or both.',
  });
}
