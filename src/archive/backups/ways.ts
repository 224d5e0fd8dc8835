import type { Lsn } from '../../lsn.js';
import { segmentOf, segmentStart } from '../../wal/file-name.js';
import { type TimelineHistory, timelineEnd } from '../../wal/timeline.js';
import { historyOf } from '../catalog-lineage.js';
import type { LedgerState } from '../ledger-entry.js';

/** A segment that is stored, in whatever form, complete or not. */
export interface StoredWalSegment {
  timeline: number;
  segment: bigint;
  /** The last time that something of it was stored, by the clock of the place. */
  stored: Date;
}

/** What of a timeline is on a way: from an LSN up to, but without, another. */
interface Part {
  timeline: number;
  from: Lsn;
  to: Lsn | undefined;
}

/** From the first timeline to the end of one. */
export interface Way {
  timeline: number;
  parts: readonly Part[];
  /** No history tells how it came to be: all lower timelines count as part of it. */
  unknown: boolean;
}

/** The ways of the timelines that WAL, backups and histories speak of. */
export class Ways {
  readonly #ways = new Map<number, Way>();
  readonly #segments = new Map<number, StoredWalSegment[]>();
  readonly segmentSize: number;

  constructor(
    segments: readonly StoredWalSegment[],
    histories: readonly TimelineHistory[],
    others: Iterable<number>,
    segmentSize: number,
    ledger: LedgerState | undefined,
  ) {
    this.segmentSize = segmentSize;
    for (const one of segments) {
      const own = this.#segments.get(one.timeline);
      if (own) own.push(one);
      else this.#segments.set(one.timeline, [one]);
    }
    const told = histories.flatMap((h) => [h.timeline, ...h.ancestors.map((a) => a.timeline)]);
    const all = [...new Set([...this.#segments.keys(), ...told, ...others])].sort((a, b) => a - b);
    for (const timeline of all) {
      this.#ways.set(timeline, wayOf(timeline, historyOf(timeline, histories, ledger), all));
    }
  }

  /** Ascending. */
  get all(): readonly Way[] {
    return [...this.#ways.values()];
  }

  of(timeline: number): Way {
    return this.#ways.get(timeline) ?? wayOf(timeline, undefined, [...this.#ways.keys()]);
  }

  /** Of the timeline itself, in no order. */
  segmentsOf(timeline: number): readonly StoredWalSegment[] {
    return this.#segments.get(timeline) ?? [];
  }

  /** That the way leads over, of that and later LSNs. */
  *segmentsOn(way: Way, from: Lsn): Generator<StoredWalSegment, void, void> {
    for (const part of way.parts) {
      yield* this.#between(part.timeline, from > part.from ? from : part.from, part.to);
    }
  }

  /** Of its ancestors, all that is before its own begin with its last byte too. */
  *segmentsBefore({ parts }: Way): Generator<StoredWalSegment, void, void> {
    for (const { timeline, from, to } of parts) {
      if (to === undefined) continue;
      for (const one of this.#between(timeline, from, to)) {
        if (segmentStart(one.segment + 1n, this.segmentSize) <= to) yield one;
      }
    }
  }

  /**
   * Those with WAL of a timeline between two LSNs. Where it has not the one in which it ends itself,
   * the first of a timeline that left it there repeats it.
   */
  *segmentsFor(timeline: number, from: Lsn, to: Lsn): Generator<StoredWalSegment, void, void> {
    const found = [...this.#between(timeline, from, to)];
    yield* found;
    const have = new Set(found.map((one) => one.segment));
    for (const segment of this.#numbers(from, to)) {
      if (!have.has(segment)) yield* this.#repeated(timeline, segment);
    }
  }

  /** True if it has all WAL of a timeline between two LSNs, as far as names tell. */
  has(timeline: number, from: Lsn, to: Lsn): boolean {
    const have = new Set([...this.segmentsFor(timeline, from, to)].map((one) => one.segment));
    return this.#numbers(from, to).every((segment) => have.has(segment));
  }

  *#between(timeline: number, from: Lsn, to: Lsn | undefined) {
    if (to !== undefined && to <= from) return;
    for (const one of this.segmentsOf(timeline)) {
      const start = segmentStart(one.segment, this.segmentSize);
      const end = segmentStart(one.segment + 1n, this.segmentSize);
      if (end > from && (to === undefined || start < to)) yield one;
    }
  }

  *#repeated(timeline: number, segment: bigint) {
    for (const { timeline: other, parts } of this.all) {
      const end = parts.find((part) => part.timeline === timeline)?.to;
      if (other === timeline || end === undefined) continue;
      if (segmentOf(end, this.segmentSize) !== segment) continue;
      for (const one of this.segmentsOf(other)) if (one.segment === segment) yield one;
    }
  }

  #numbers(from: Lsn, to: Lsn): bigint[] {
    const numbers: bigint[] = [];
    const behind = to > from ? segmentOf(to - 1n, this.segmentSize) + 1n : 0n;
    for (let n = segmentOf(from, this.segmentSize); n < behind; n++) numbers.push(n);
    return numbers;
  }
}

function wayOf(
  timeline: number,
  history: TimelineHistory | undefined,
  all: readonly number[],
): Way {
  if (!history) {
    const lower = all.filter((other) => other < timeline);
    const parts = [...lower, timeline].map((t) => ({
      timeline: t,
      from: 0n as Lsn,
      to: undefined,
    }));
    return { timeline, parts, unknown: true };
  }
  const parts: Part[] = [];
  let from = 0n as Lsn;
  for (const { timeline: ancestor, end } of history.ancestors) {
    parts.push({ timeline: ancestor, from, to: end });
    from = end;
  }
  parts.push({ timeline, from, to: timelineEnd(history, timeline) });
  return { timeline, parts, unknown: false };
}

/** True if the way leads through a position on a timeline, or ends there. */
export function leadsThrough(
  { parts }: Way,
  { timeline, lsn }: { timeline: number; lsn: Lsn },
): boolean {
  return parts.some((p) => p.timeline === timeline && (p.to === undefined || lsn <= p.to));
}
