import type { Damage } from '../archive/way/scan.js';
import type { Lsn } from '../lsn.js';
import type { TimestampTz } from '../wal/records/timestamp.js';
import { dropsFiles, eventTime, type WalEvent } from './event.js';

/** Which events are wanted: those that meet every condition. */
export interface EventFilter {
  /** First LSN. */
  since?: Lsn;
  /** First LSN that is not wanted any more. */
  until?: Lsn;
  /** Not earlier than this. */
  after?: TimestampTz;
  /** Not later than this. */
  before?: TimestampTz;
  /** The transaction, or one that it is a subtransaction of. */
  xid?: number;
  /** Restore points of this name. */
  restorePoint?: string;
  /** Commits that dropped, emptied or replaced relations, or dropped databases. */
  drops?: boolean;
}

/**
 * How far clocks may have gone back and a time still be found: by this much may commits be out of
 * order before reading by time (not from the archive's first byte to its last) misses one.
 * Microseconds: one hour.
 */
export const CLOCK_SLACK = 3_600_000_000n;

/** Judges events in their order. */
export class EventMatcher {
  readonly #filter: EventFilter;
  /** Time of the last event that had one: branches have none. */
  #clock: TimestampTz | undefined;

  constructor(filter: EventFilter) {
    this.#filter = filter;
  }

  /** Places that cannot be read match: what is looked for may have been there. */
  matches(event: WalEvent): boolean {
    const { since, until, after, before, xid, restorePoint, drops } = this.#filter;
    const time = eventTime(event) ?? this.#clock;
    this.#clock = time;
    if (event.kind === 'damage') return isWithin(event, this.#filter);
    if (since !== undefined && event.lsn < since) return false;
    if (until !== undefined && event.lsn >= until) return false;
    if (after !== undefined && (time === undefined || time < after)) return false;
    if (before !== undefined && (time === undefined || time > before)) return false;
    if (xid !== undefined && !isOf(event, xid)) return false;
    if (drops && !dropsFiles(event)) return false;
    if (restorePoint === undefined) return true;
    return event.kind === 'restore-point' && event.name === restorePoint;
  }

  /**
   * True if ends of transactions of which the WAL tells no more than when that was can neither match
   * nor be what `past` waits for, but for that of `xid`. Branches have no time of their own, and take
   * that of the last end; but such filters want none.
   */
  get passesEnds(): boolean {
    const { before, xid, restorePoint, drops } = this.#filter;
    return before === undefined && (drops === true || (restorePoint ?? xid) !== undefined);
  }

  /** True once no later event can match. */
  past(event: WalEvent): boolean {
    const { until, before } = this.#filter;
    if (until !== undefined && event.lsn >= until) return true;
    const time = eventTime(event);
    return before !== undefined && time !== undefined && time > before + CLOCK_SLACK;
  }
}

/** True if a place that cannot be read reaches into a range of LSNs. */
export function isWithin(
  { lsn, resumedAt }: Damage,
  { since, until }: Pick<EventFilter, 'since' | 'until'>,
): boolean {
  if (until !== undefined && lsn >= until) return false;
  return since === undefined || resumedAt === undefined || resumedAt > since;
}

function isOf(event: WalEvent, xid: number): boolean {
  return 'subxids' in event && (event.xid === xid || event.subxids.includes(xid));
}
