import type { Lsn } from '../../lsn.js';
import { segmentStart } from '../../wal/file-name.js';
import { type Listing, segmentFiles } from '../listing.js';
import type { ShipProgress, TimelineProgress } from './progress.js';
import { covers } from './ranges.js';

/** A segment that a directory has, in whatever forms. */
export interface LocalSegment {
  /** Its 24 digits. */
  base: string;
  timeline: number;
  segment: bigint;
  start: Lsn;
  end: Lsn;
  /** Of its files, the best to read first. */
  names: string[];
}

/** What of a directory's files is complete, and what is not, each in ascending order. */
export interface LocalSegments {
  complete: LocalSegment[];
  /** Of which no complete file is there. */
  partial: LocalSegment[];
}

/** Sorts the files of segments by what they are of. */
export function localSegments(listing: Listing, segmentSize: number): LocalSegments {
  const found = new Map<string, LocalSegment & { whole: string[] }>();
  for (const file of segmentFiles(listing.segments, segmentSize)) {
    const { name, timeline, segment, partial } = file;
    const base = name.slice(0, 24);
    const start = segmentStart(segment, segmentSize);
    const end = segmentStart(segment + 1n, segmentSize);
    const one = found.get(base) ?? {
      base,
      timeline,
      segment,
      start,
      end,
      names: [],
      whole: [],
    };
    found.set(base, one);
    (partial ? one.names : one.whole).push(name);
  }
  const complete: LocalSegment[] = [];
  const partial: LocalSegment[] = [];
  for (const { whole, ...segment } of [...found.values()].reverse()) {
    if (whole.length > 0) complete.push({ ...segment, names: whole });
    else partial.push(segment);
  }
  const ascending = (a: LocalSegment, b: LocalSegment): number =>
    a.segment === b.segment ? a.timeline - b.timeline : a.segment < b.segment ? -1 : 1;
  return { complete: complete.sort(ascending), partial: partial.sort(ascending) };
}

/** True if a place has answered for a whole segment. */
export function isShipped(
  timelines: ReadonlyMap<number, TimelineProgress>,
  { timeline, start, end }: LocalSegment,
): boolean {
  return covers(timelines.get(timeline)?.shipped ?? [], start, end);
}

/**
 * Up to where a place has all whole segments of a directory: the start of the first of those that it
 * is lacking, else the end of the last one that was shipped. Undefined if there is neither.
 */
export function contiguousPosition(
  { timelines }: Pick<ShipProgress, 'timelines'>,
  lacking: readonly LocalSegment[],
): { timeline: number; lsn: Lsn } | undefined {
  const [first] = lacking;
  if (first) return { timeline: first.timeline, lsn: first.start };
  let newest: { timeline: number; lsn: Lsn } | undefined;
  for (const [timeline, { shipped }] of timelines) {
    const end = shipped.at(-1)?.[1];
    if (end !== undefined && (newest === undefined || end > newest.lsn)) {
      newest = { timeline, lsn: end as Lsn };
    }
  }
  return newest;
}
