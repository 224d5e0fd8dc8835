import type { Archive, PassedOver } from '../archive/archive.js';
import type { Catalog } from '../archive/catalog.js';
import { type ArchiveOptions, withArchives } from '../archive/places/open-archive.js';
import { readCatalog } from '../archive/read-catalog.js';
import { divergedWal } from '../archive/way/diverged.js';
import { type Plan, type PlannedSegment, planTimeline } from '../archive/way/plan.js';
import { scanWay, type WayVisitor } from '../archive/way/runs.js';
import type { Damage } from '../archive/way/scan.js';
import { UsageError } from '../errors.js';
import { formatLsn, type Lsn } from '../lsn.js';
import {
  aBigint,
  aFunction,
  aNumber,
  anLsn,
  anObject,
  aSignal,
  aSwitch,
  aText,
  aTimeline,
  type Checks,
  checkOptions,
} from '../options.js';
import type { TimestampTz } from '../wal/records/timestamp.js';
import { timelineAt } from '../wal/timeline.js';
import {
  EventReader,
  type TransactionEvent,
  WANTED,
  WANTED_BUT_ENDS,
  type WalEvent,
} from './event.js';
import { type EventFilter, EventMatcher, isWithin } from './filter.js';
import { segmentsFromTime } from './start.js';

/** How far a search is; it may end before all is read. */
export interface FindProgress {
  bytes: number;
  totalBytes: number;
}

export interface FindOptions extends EventFilter {
  /** Follow the way to this timeline; default the newest. */
  timeline?: number;
  /**
   * Of `timeline` only the transactions beyond where the archive left it: those that a new primary
   * did not take over.
   */
  beyondFork?: boolean;
  /** Read all of it, however much clocks may have gone back. */
  full?: boolean;
  /** Threads. Default: one for each core. */
  jobs?: number;
  /** Bytes of WAL that a thread takes at a time. */
  jobBytes?: number;
  /** Awaited between two segments: what comes of one may be taken before the next is read. */
  between?: () => Promise<void>;
  /** Bytes of WAL that were read, of how many there are to read. */
  onProgress?: (progress: FindProgress) => void;
  /** What opens what is encrypted. */
  keys?: ArchiveOptions;
  signal?: AbortSignal;
}

const CHECKS: Checks<FindOptions> = {
  since: anLsn,
  until: anLsn,
  after: aBigint,
  before: aBigint,
  xid: aNumber(0, 0xffff_ffff),
  restorePoint: aText,
  drops: aSwitch,
  timeline: aTimeline,
  beyondFork: aSwitch,
  full: aSwitch,
  jobs: aNumber(1, 1024),
  jobBytes: aNumber(1, Number.MAX_SAFE_INTEGER),
  between: aFunction,
  onProgress: aFunction,
  keys: anObject,
  signal: aSignal,
};

/** Takes events in the order of the WAL; true: no more are wanted. */
export type OnEvent = (event: WalEvent) => boolean | undefined;

/** What was looked at. */
export interface FindResult {
  timeline: number;
  /** The timeline's ancestors are not known: only its own segments were read. */
  orphan: boolean;
  /** Later timelines that the archive's receiver never followed; recovery to `latest` would. */
  unfollowed: number[];
  /** Places in the range asked for that could not be read, or are missing. */
  damaged: number;
  /** All WAL in that range was read, as far as events were wanted: nothing can have been missed. */
  complete: boolean;
  /** Of several archives, the damaged copies for which another one's was read. */
  passedOver: readonly PassedOver[];
  /** Of the first segment read, and behind the last byte. Absent if nothing was read. */
  from?: Lsn;
  to?: Lsn;
}

/**
 * Reads the events out of an archive's WAL, on the way from the oldest segment to a timeline's end.
 * @param places an archive, or several of one cluster, which are read as one
 * @throws UsageError if the archive has no such timeline, StorageError if it cannot be read
 */
export async function findEvents(
  places: string | readonly string[],
  options: FindOptions,
  onEvent: OnEvent,
): Promise<FindResult> {
  checkOptions('find', options, CHECKS);
  return withArchives(places, options.keys ?? {}, async (archive) => {
    const catalog = await readCatalog(archive);
    const plan = planTimeline(catalog, options.timeline);
    const range = options.beyondFork ? await beyondFork(catalog, options) : options;
    const matcher = new EventMatcher(range);
    const segments = await segmentsToRead(plan, range, range.after);
    const visit = (event: WalEvent): boolean => {
      const wanted = !range.beyondFork || BEYOND.includes(event.kind);
      if (wanted && matcher.matches(event) && onEvent(event)) return true;
      return !range.full && matcher.past(event);
    };
    return walk(plan, segments, range, visit, matcher.passesEnds);
  });
}

/** What is looked for beyond a fork: what was confirmed there, or prepared, and what cannot be read. */
const BEYOND: readonly WalEvent['kind'][] = ['commit', 'prepare', 'damage'];

/** The same from the fork on; nothing at all where the archive was not left, or not gone beyond. */
async function beyondFork(catalog: Catalog, options: FindOptions): Promise<FindOptions> {
  const { timeline, since = 0n as Lsn } = options;
  if (timeline === undefined) {
    throw new UsageError('to look beyond a fork needs a timeline to be specified');
  }
  const found = (await divergedWal(catalog)).find((wal) => wal.timeline === timeline);
  if (!found) return { ...options, since, until: since };
  return { ...options, since: since > found.from ? since : found.from };
}

/** The state of the database at a time, as recovery_target_time finds it. */
export interface MomentResult extends FindResult {
  /** The last commit that recovery to the time replays; undefined if none is in the archive. */
  last?: TransactionEvent;
  /** The first commit that it does not replay. */
  next?: TransactionEvent;
  /** Places that could not be read, up to 100: another commit may have been there. */
  damages: Damage[];
}

export type MomentOptions = Pick<
  FindOptions,
  'timeline' | 'since' | 'until' | 'full' | 'keys' | 'jobs' | 'signal' | 'onProgress'
>;

/**
 * What recovery to a time arrives at: PostgreSQL stops before the first transaction in the WAL
 * that ended later than the time.
 */
export async function findMoment(
  places: string | readonly string[],
  time: TimestampTz,
  options: MomentOptions,
): Promise<MomentResult> {
  checkOptions<FindOptions>('find', options, CHECKS);
  return withArchives(places, options.keys ?? {}, (archive) => momentIn(archive, time, options));
}

async function momentIn(
  archive: Archive,
  time: TimestampTz,
  options: MomentOptions,
): Promise<MomentResult> {
  const plan = planTimeline(await readCatalog(archive), options.timeline);
  const segments = await segmentsToRead(plan, options, time);
  const { since = 0n, until } = options;
  let last: TransactionEvent | undefined;
  let next: TransactionEvent | undefined;
  let later = false;
  const damages: Damage[] = [];
  const result = await walk(plan, segments, options, (event) => {
    if (until !== undefined && event.lsn >= until) return true;
    if (event.kind === 'damage' && damages.length < 100 && isWithin(event, options)) {
      damages.push(event);
    }
    if ((event.kind !== 'commit' && event.kind !== 'abort') || event.lsn < since) return false;
    later ||= event.time > time;
    if (event.kind === 'abort') return false;
    if (later) next = event;
    else last = event;
    return later;
  });
  return { ...result, ...(last ? { last } : {}), ...(next ? { next } : {}), damages };
}

async function segmentsToRead(
  plan: Plan,
  { since, until, full, signal }: FindOptions,
  time: TimestampTz | undefined,
): Promise<PlannedSegment[]> {
  const segments = plan.segments.filter(
    ({ start }) =>
      (since === undefined || start + BigInt(plan.segmentSize) > since) &&
      (until === undefined || start < until),
  );
  return time === undefined || full ? segments : segmentsFromTime(plan, segments, time, signal);
}

/** What is here of the WAL around the segments that are read, and cannot be read itself. */
function unreadAround(
  plan: Plan,
  segments: readonly PlannedSegment[],
  options: Pick<FindOptions, 'since' | 'until'>,
): { before: Damage[]; behind: Damage[] } {
  const places = plan.unread
    .map(({ name, from, to }): Damage => {
      const message = `"${name}" is in a form that cannot be read`;
      return { kind: 'damage', lsn: from, from, resumedAt: to, message };
    })
    .filter((place) => isWithin(place, options));
  const first = segments[0];
  const before = places.filter(({ lsn }) => first !== undefined && lsn < first.start);
  const behind = places.filter((place) => !before.includes(place));
  // Before a time that later segments are before, too, nothing is asked for.
  const { since = 0n } = options;
  const left = plan.segments.some(
    ({ start }) =>
      first !== undefined && start < first.start && start + BigInt(plan.segmentSize) > since,
  );
  return { before: left ? [] : before, behind };
}

/** Reads segments and hands on their events, and the branches among them. */
async function walk(
  plan: Plan,
  segments: readonly PlannedSegment[],
  options: FindOptions,
  visit: (event: WalEvent) => boolean,
  passesEnds = false,
): Promise<FindResult> {
  const from = segments[0]?.start;
  const reader = new EventReader((lsn) => timelineAt(plan.history, lsn));
  const branches = plan.branches.filter((b) => from !== undefined && b.lsn >= from);
  let damaged = 0;
  const emit = (event: WalEvent): boolean => {
    while (branches[0] && branches[0].lsn <= event.lsn) {
      if (visit({ kind: 'branch', ...branches.shift()! })) return true;
    }
    return visit(event);
  };
  const damage = (found: Damage): boolean => {
    if (isWithin(found, options)) damaged++;
    return emit(found);
  };
  const visitor: WayVisitor = {
    damage,
    wants: (ended, records) =>
      (options.xid !== undefined && ended.includes(options.xid | 0)) ||
      reader.awaits(ended, records),
    record(record, major) {
      let event: WalEvent | undefined;
      try {
        event = reader.read(record, major);
      } catch (e) {
        const { lsn, endLsn } = record;
        const { message } = e as Error;
        return damage({ kind: 'damage', lsn, from: lsn, resumedAt: endLsn, message });
      }
      return event !== undefined && emit(event);
    },
  };
  const { before, behind } = unreadAround(plan, segments, options);
  before.forEach(damage);
  const totalBytes = segments.length * plan.segmentSize;
  let bytes = 0;
  const { keys, jobs, jobBytes, signal } = options;
  const kinds = { kinds: WANTED, noted: passesEnds ? WANTED_BUT_ENDS : undefined };
  const between = async (): Promise<void> => {
    bytes += plan.segmentSize;
    options.onProgress?.({ bytes, totalBytes });
    await options.between?.();
  };
  const read = await scanWay(
    plan,
    segments,
    { ...kinds, keys, jobs, jobBytes, signal, between },
    visitor,
  );
  // Where no record follows any more: a timeline that was promoted at the very end.
  const to = read.position;
  const end = to ?? 0n;
  let { enough } = read;
  for (const branch of branches) {
    if (enough || branch.lsn > end) break;
    enough = visit({ kind: 'branch', ...branch });
  }
  const { timeline, orphan, missing } = plan;
  const { since } = options;
  if (!enough && missing && (since === undefined || missing.to > since)) {
    const { from: lsn } = missing;
    const range = `${formatLsn(lsn)} to ${formatLsn(missing.to)}`;
    damage({ kind: 'damage', lsn, from: lsn, message: `WAL is missing: ${range}` });
  }
  if (!enough) behind.forEach(damage);
  const { unfollowed } = plan;
  const complete = damaged === 0 && !(orphan && (since === undefined || since < (from ?? 0n)));
  return {
    timeline,
    orphan,
    unfollowed,
    damaged,
    complete,
    passedOver: plan.archive.passedOver ?? [],
    ...(from === undefined || !to ? {} : { from, to }),
  };
}
