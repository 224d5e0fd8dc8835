import type { Lsn } from '../../lsn.js';
import type { WalRecord } from '../../wal/record.js';
import type { TimestampTz } from '../../wal/records/timestamp.js';
import { isEnd, type Mark, readMarks, type SegmentMarks } from '../way/marks.js';
import { decoding, type Plan } from '../way/plan.js';
import { feedSegment, finish } from '../way/read.js';
import { type Damage, DamageTolerantScan } from '../way/scan.js';

/** What is known of the marks of a segment without reading it. */
export interface SegmentFacts {
  /** Times of the transactions that end in it; absent if none does. */
  times?: { min: TimestampTz; max: TimestampTz };
  /** Whether it has what is searched for, a transaction's end or a restore point. */
  holds: boolean;
}

/** Marks that are kept at hand at most, besides those of the segment read last. */
const KEPT = 500_000;

/**
 * The marks of the segments from where replay begins to where the WAL without a gap ends. Segments
 * are called by their place in `plan.segments`.
 */
export class WayMarks {
  readonly plan: Plan;
  /** Replay begins here, in segment `first`. */
  readonly from: Lsn;
  readonly first: number;
  /** Behind the last segment without one missing. */
  readonly behind: number;
  /** Files read so far. */
  segmentsRead = 0;
  readonly #facts: (at: number) => SegmentFacts | undefined;
  readonly #signal: AbortSignal | undefined;
  readonly #cache = new Map<number, SegmentMarks>();
  #kept = 0;

  constructor(
    plan: Plan,
    { from, first, behind }: { from: Lsn; first: number; behind: number },
    facts: (at: number) => SegmentFacts | undefined = () => undefined,
    signal?: AbortSignal,
  ) {
    this.plan = plan;
    this.from = from;
    this.first = first;
    this.behind = behind;
    this.#facts = facts;
    this.#signal = signal;
  }

  /** What an index says; of the segment in which replay begins nothing, which is of two halves. */
  facts(at: number): SegmentFacts | undefined {
    return at === this.first ? undefined : this.#facts(at);
  }

  isAtHand(at: number): boolean {
    return this.#cache.has(at);
  }

  /** Those that replay meets. @throws the signal's reason, what an archive throws */
  async at(at: number): Promise<SegmentMarks> {
    const cached = this.#cache.get(at);
    if (cached) return cached;
    const read = await readMarks(this.plan, at, this.#signal);
    this.segmentsRead += read.segments;
    const marks = read.marks.filter(({ lsn }) => lsn >= this.from);
    const found = { ...read, marks };
    this.#kept += marks.length;
    for (const [oldest, { marks: forgotten }] of this.#cache) {
      if (this.#kept <= KEPT) break;
      this.#cache.delete(oldest);
      this.#kept -= forgotten.length;
    }
    this.#cache.set(at, found);
    return found;
  }

  /** The place of the segment that a byte is in; undefined if it is not on this stretch of the way. */
  placeOf(lsn: Lsn): number | undefined {
    const { segments, segmentSize } = this.plan;
    const at = placeAt(segments, lsn);
    if (at < this.first || at >= this.behind) return undefined;
    return lsn < segments[at]!.start + BigInt(segmentSize) ? at : undefined;
  }

  /**
   * The first record that begins at an LSN or behind it, read from the segment of that LSN on. `last`
   * is the one before, as far as it was met, `end` where the WAL ends if there is none.
   */
  async firstRecord(
    at: number,
    lsn: Lsn,
  ): Promise<{ found?: Pick<WalRecord, 'lsn' | 'endLsn'>; last?: Lsn; end: Lsn; damage?: Damage }> {
    let found: WalRecord | undefined;
    let last: Lsn | undefined;
    let damage: Damage | undefined;
    const { plan } = this;
    const scan = new DamageTolerantScan(
      { ...decoding(plan), select: () => true },
      {
        record(record) {
          if (record.lsn >= lsn) found = record;
          else last = record.lsn;
          return found !== undefined;
        },
        damage(one) {
          damage ??= one;
          return true;
        },
      },
    );
    for (let i = at; i < this.behind && !scan.enough; i++) {
      const segment = plan.segments[i]!;
      const told = await feedSegment(plan, segment, scan, this.#signal);
      this.segmentsRead++;
      if (scan.enough) break;
      if (i === this.behind - 1) finish(segment, scan, told);
      else if (scan.position === segment.start + BigInt(plan.segmentSize)) scan.endSegment();
    }
    const end = damage?.from ?? scan.validEnd ?? plan.segments[at]!.start;
    return {
      end,
      ...(found ? { found } : {}),
      ...(last === undefined ? {} : { last }),
      ...(damage ? { damage } : {}),
    };
  }

  /** The last whole record, and where it ends. */
  async lastRecord(): Promise<{ last?: Lsn; end: Lsn; damage?: Damage }> {
    for (let back = 2; ; back *= 2) {
      const at = Math.max(this.first, this.behind - back);
      const read = await this.firstRecord(at, INFINITE);
      if (read.last !== undefined || read.damage || at === this.first) return read;
    }
  }

  /**
   * The last commit before a place and the first behind it, from segments near it: those at hand, and
   * few more.
   */
  async around(lsn: Lsn): Promise<{ last?: Mark; next?: Mark }> {
    const at = this.placeOf(lsn) ?? this.behind - 1;
    const last = await this.#nearest(at, -1, (marks) =>
      marks.findLast((mark) => mark.kind === 'commit' && mark.lsn < lsn),
    );
    const next = await this.#nearest(at, 1, (marks) =>
      marks.find((mark) => mark.kind === 'commit' && mark.lsn >= lsn),
    );
    return { ...(last ? { last } : {}), ...(next ? { next } : {}) };
  }

  async #nearest(
    at: number,
    step: 1 | -1,
    pick: (marks: readonly Mark[]) => Mark | undefined,
  ): Promise<Mark | undefined> {
    let left = NEAR;
    for (let i = at; i >= this.first && i < this.behind; i += step) {
      const facts = this.facts(i);
      if (facts && !facts.times) continue;
      if (!this.isAtHand(i)) {
        if (left === 0 || this.segmentsRead >= MOST_READS) return undefined;
        left--;
      }
      const { marks, damage } = await this.at(i);
      const found = pick(marks);
      if (found || (damage && step > 0)) return found;
    }
    return undefined;
  }

  /** The last end of a transaction on this stretch, from few segments. */
  async lastEnd(): Promise<Mark | undefined> {
    return this.#nearest(this.behind - 1, -1, (marks) => marks.findLast(isEnd));
  }
}

/** Segments that are read on one side for what is only told. */
const NEAR = 3;
/** And not when so many were read already. */
const MOST_READS = 19;

const INFINITE = 0xffff_ffff_ffff_ffffn as Lsn;

/** The place of the last segment that begins at an LSN or before it; -1 if there is none. */
export function placeAt(segments: Plan['segments'], lsn: bigint): number {
  let low = 0;
  let high = segments.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (segments[middle]!.start <= lsn) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}
