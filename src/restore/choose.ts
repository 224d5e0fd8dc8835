import type { BackupArea } from '../archive/backups/area.js';
import { chainOf } from '../archive/backups/chain.js';
import type { Catalog } from '../archive/catalog.js';
import type { LocateOptions, TargetResult } from '../archive/targets/locate.js';
import type {
  LocatedTarget,
  RecoveryTarget,
  UnreachableTarget,
} from '../archive/targets/target.js';
import { beginOf } from '../archive/targets/window.js';
import { planTimeline } from '../archive/way/plan.js';
import type { BackupRecord } from '../base/backup-record.js';
import {
  CorruptObjectError,
  UnreachableTargetError,
  UsageError,
  type WalkeepError,
} from '../errors.js';
import { formatLsn, type Lsn } from '../lsn.js';
import { segmentFileName, segmentOf } from '../wal/file-name.js';
import type { TimestampTz } from '../wal/records/timestamp.js';
import {
  isInHistory,
  rootHistory,
  type TimelineHistory,
  timelineAt,
  timelineEnd,
} from '../wal/timeline.js';

/** A complete backup, and where it was found. */
export interface Candidate {
  record: BackupRecord;
  area: BackupArea;
}

export interface Choice extends Candidate {
  /** What it is made of: the full backup first, itself last. */
  links: Candidate[];
  located: LocatedTarget;
}

export interface ChooseOptions {
  /** What the archives have of WAL; undefined if none of them has any. */
  catalog: Catalog | undefined;
  /** In any order. */
  candidates: readonly Candidate[];
  target: RecoveryTarget;
  timeline?: number | undefined;
  /** This one and no other. */
  backup?: string | undefined;
  /** Of backups that are there and cannot be proven. */
  problems?: readonly WalkeepError[];
  locate: (
    catalog: Catalog,
    target: RecoveryTarget,
    options: LocateOptions,
  ) => Promise<TargetResult>;
  /** What opens the index of the WAL if it is encrypted. */
  keys?: LocateOptions['keys'];
  signal?: AbortSignal | undefined;
}

/** WAL that is replayed. */
export interface ReplayedWal {
  from: Lsn;
  to: Lsn;
  segments: number;
  /** Names of the segments. */
  first: string;
  last: string;
}

/** An earlier backup may have what a later one has not. */
const EARLIER_MAY: readonly UnreachableTarget['reason'][] = [
  ...(['before-backup', 'inside-backup', 'unknown'] as const),
];

/**
 * The newest backup from which a way leads to the target. A later one than the target would be of no
 * use, an earlier one would cost time: WAL is slower to replay than files are to copy.
 * @throws UnreachableTargetError with the nearest target that can be reached; UsageError for a backup
 *   that is not there; what `locate` throws
 */
export async function chooseBackup(options: ChooseOptions): Promise<Choice> {
  const { catalog, target, timeline, backup } = options;
  const named = options.candidates.filter(({ record }) => !backup || record.id === backup);
  if (named.length === 0) throw noBackup(options);
  const history = historyOf(options);
  const whole = wholeOf(named, options);
  const onWay = whole.filter(({ record }) => isOnWay(record, history)).sort(newestFirst);
  if (onWay.length === 0) throw offWay(whole, history);
  let first: UnreachableTarget | undefined;
  let last: UnreachableTarget | undefined;
  /** Why the newest did not do that could not be for coming too late. */
  let aside: UnreachableTarget | undefined;
  for (const [i, candidate] of onWay.entries()) {
    const isLast = i === onWay.length - 1;
    if (!isLast && isPlainlyLater(candidate.record, target)) continue;
    const alone = locatedAlone(candidate.record, options);
    const links = linksOf(candidate, options);
    if (alone) return { ...candidate, located: alone, links };
    if (!catalog) throw noWal(candidate.record);
    const found = await options.locate(catalog, target, {
      timeline: timeline ?? history.timeline,
      after: afterOf(candidate.record),
      area: candidate.area,
      keys: options.keys,
      signal: options.signal,
    });
    if ('located' in found) {
      return { ...candidate, located: found.located, links };
    }
    last = found.unreachable;
    first ??= last;
    if (EARLIER_MAY.includes(last.reason)) continue;
    aside ??= last;
    // The WAL that this one needs is not here; of an earlier one it may be, but not all to here. What
    // has no place before it is found may be there that is before this one.
    if (target.kind !== 'xid' && target.kind !== 'name') break;
  }
  throw unreachable(first, aside ?? last);
}

/** The timeline that is recovered to, with its ancestors. */
export function historyOf({ catalog, timeline, candidates }: ChooseOptions): TimelineHistory {
  if (catalog) return planTimeline(catalog, timeline).history;
  // Without WAL there is no more than what a backup brings along.
  const newest = Math.max(...candidates.map(({ record }) => record.end.timeline));
  return rootHistory(timeline ?? newest);
}

/** True if recovery to the history's timeline passes the end of the backup. */
export function isOnWay({ start, end }: BackupRecord, history: TimelineHistory): boolean {
  const passes = ({ timeline, lsn }: BackupRecord['end']): boolean => {
    const left = timelineEnd(history, timeline);
    return isInHistory(history, timeline) && (left === undefined || lsn <= left);
  };
  return passes(start) && passes(end);
}

function newestFirst({ record: a }: Candidate, { record: b }: Candidate): number {
  if (a.end.lsn === b.end.lsn) return a.id < b.id ? 1 : -1;
  return a.end.lsn < b.end.lsn ? 1 : -1;
}

/**
 * Spares the look at WAL for backups that end behind the target. A clock that is wrong costs no more
 * than an earlier backup than needed: the earliest is tried whatever the times say.
 */
function isPlainlyLater({ start, end }: BackupRecord, target: RecoveryTarget): boolean {
  if (target.kind === 'lsn') return end.lsn > target.lsn;
  if (target.kind !== 'time') return false;
  return timestampOf(start.time) > target.time;
}

/** 2000-01-01 in microseconds since 1970. */
const EPOCH = 946_684_800_000_000n;

/** Of a time of a record. */
export function timestampOf(time: string): TimestampTz {
  return (BigInt(Date.parse(time)) * 1000n - EPOCH) as TimestampTz;
}

/** The WAL that it brings along need not be in the archive. */
function afterOf(record: BackupRecord): LocateOptions['after'] {
  const { redo, ...begin } = beginOf(record);
  const after = { ...begin, time: timestampOf(record.end.time) };
  return record.wal === 'included' ? after : { ...after, redo };
}

/** Of a backup that needs no archive, for a target that needs none. */
function locatedAlone(
  { wal, end }: BackupRecord,
  { catalog, target }: ChooseOptions,
): LocatedTarget | undefined {
  if (wal !== 'included') return undefined;
  const { lsn, timeline } = end;
  const located = { lsn, timeline, notes: [], segmentsRead: 0 };
  if (target.kind === 'immediate') {
    return { ...located, setting: { name: 'recovery_target', value: 'immediate' } };
  }
  if (target.kind === 'latest' && !catalog) return { ...located, setting: undefined };
  return undefined;
}

function noBackup({ backup, candidates, problems = [] }: ChooseOptions): Error {
  const damaged = problems.find(({ key }) => backup === undefined || key?.includes(backup));
  if (damaged) return damaged;
  if (backup === undefined) {
    return new UnreachableTargetError('there is no complete base backup', {
      hint: 'Take one with "walkeep backup"; "walkeep backups" shows what there is.',
    });
  }
  const there = candidates.map(({ record }) => record.id).sort();
  return new UsageError(`there is no complete base backup "${backup}"`, {
    hint: there.length === 0 ? 'There is none at all.' : `There is ${there.join(', ')}.`,
  });
}

function noWal({ id }: BackupRecord): Error {
  return new UnreachableTargetError(
    `there is no WAL, and backup "${id}" alone does not get there`,
    {
      hint: 'Give the place that has the WAL, too.',
    },
  );
}

/**
 * Those of which all is there that they are based on.
 * @throws CorruptObjectError where there are none, and something is missing
 */
export function wholeOf(named: readonly Candidate[], options: ChooseOptions): Candidate[] {
  let problem: unknown;
  const whole = named.filter((candidate) => {
    try {
      return linksOf(candidate, options).length > 0;
    } catch (e) {
      problem ??= e;
      return false;
    }
  });
  if (whole.length === 0) throw problem;
  return whole;
}

/** What a backup is made of, the full one first. @throws CorruptObjectError if something is missing */
function linksOf({ record }: Candidate, { candidates }: ChooseOptions): Candidate[] {
  const find = (id: string) => candidates.find((one) => one.record.id === id);
  const found = chainOf(record, (id) => find(id)?.record);
  if ('chain' in found) {
    return found.chain.toReversed().flatMap(({ id }) => find(id) ?? []);
  }
  throw new CorruptObjectError(`backup ${record.id} cannot be restored: ${found.broken}`, {
    key: record.id,
    hint: 'Give the place that has the others, too, or restore an earlier one.',
  });
}

function offWay(candidates: readonly Candidate[], history: TimelineHistory): Error {
  const newest = candidates.toSorted(newestFirst)[0]?.record;
  const { timeline } = history;
  if (!newest) return new UnreachableTargetError('there is no full backup');
  const { id, end } = newest;
  const at = `timeline ${end.timeline}, at ${formatLsn(end.lsn)}`;
  return new UnreachableTargetError(
    `no base backup lies on the way to timeline ${timeline}; the newest, "${id}", ends on ${at}`,
    { lsn: end.lsn, hint: `Use --timeline ${end.timeline}, or take a backup on ${timeline}.` },
  );
}

/** The nearest target is that of the newest backup, what is unknown is unknown to the earliest. */
function unreachable(
  first: UnreachableTarget | undefined,
  last: UnreachableTarget | undefined,
): UnreachableTargetError {
  const told = last ?? first;
  const { message = 'the target cannot be reached', nearest, notes = [] } = told ?? {};
  return new UnreachableTargetError(message, {
    ...(nearest ? { lsn: nearest.lsn, hint: nearest.hint } : {}),
    ...(notes.length === 0 ? {} : { detail: notes.join(' ') }),
  });
}

/** What is replayed. */
export function walOf({ record, located }: Choice, catalog: Catalog | undefined): ReplayedWal {
  const { segmentSize, start } = record;
  const history = catalog && planTimeline(catalog, located.timeline).history;
  const timeline = history ? timelineAt(history, located.lsn - 1n) : located.timeline;
  const [from, to] = [segmentOf(start.lsn, segmentSize), segmentOf(located.lsn, segmentSize)];
  return {
    ...{ from: start.lsn, to: located.lsn, segments: Number(to - from) + 1 },
    first: segmentFileName(start.timeline, from, segmentSize),
    last: segmentFileName(timeline, to, segmentSize),
  };
}
