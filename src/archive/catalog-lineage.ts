import type { Lsn } from '../lsn.js';
import { segmentOf, segmentStart } from '../wal/file-name.js';
import { isInHistory, rootHistory, type TimelineHistory, timelineEnd } from '../wal/timeline.js';
import type { Beside, CatalogSegment, CatalogTimeline, SegmentGap } from './catalog.js';
import type { GapEntry, LedgerState } from './ledger.js';
import { lineageHistory, storedUpTo, wasFollowed } from './ledger-entry.js';

/**
 * The ancestors of a timeline: from its own history file, else from that of a timeline that
 * branched off it later, else from the lineage in the ledger (whose starts are those of segments).
 * Undefined if none of them tells.
 */
export function historyOf(
  timeline: number,
  histories: readonly TimelineHistory[],
  ledger: LedgerState | undefined,
): TimelineHistory | undefined {
  if (timeline === 1) return rootHistory(1);
  const own = histories.find((h) => h.timeline === timeline);
  if (own) return own;
  const child = histories.find((h) => isInHistory(h, timeline));
  if (child) {
    return { timeline, ancestors: child.ancestors.filter((a) => a.timeline < timeline) };
  }
  const told = ledger && lineageHistory(ledger, timeline);
  const parent = told?.ancestors.at(-1);
  if (!parent) return undefined;
  const before = historyOf(parent.timeline, histories, ledger)?.ancestors ?? [];
  return { timeline, ancestors: [...before, parent] };
}

/**
 * What is missing on the way to each timeline's newest segment: of an ancestor the segments before
 * the one in which it ends, then those of the timeline itself; if that has none yet, the WAL up to
 * its begin. What lies before the first segment that is there is no gap: archives begin somewhere.
 */
export function lineageGaps(
  timelines: readonly CatalogTimeline[],
  segmentSize: number,
  ledger: LedgerState | undefined,
): SegmentGap[] {
  const byNumber = new Map(timelines.map((t) => [t.timeline, t]));
  const found = new Map<string, SegmentGap>();
  const note = (key: string, gap: SegmentGap, { beside }: CatalogTimeline): void => {
    const other = found.get(key);
    const aside = beside && (!other || other.beside) ? { beside } : {};
    found.set(key, { ...gap, ...aside });
  };
  for (const leaf of timelines) {
    const ancestors = leaf.history?.ancestors ?? [];
    /** The next segment that is needed; undefined before the first that is there. */
    let next: bigint | undefined;
    for (const { timeline, end } of [...ancestors, { timeline: leaf.timeline, end: undefined }]) {
      const stop = end === undefined ? undefined : segmentOf(end, segmentSize);
      const begin =
        stop === undefined && next !== undefined
          ? missingBegin(leaf, timelines, segmentSize)
          : undefined;
      if (begin) note(`${timeline} begin`, begin, leaf);
      const missing = (first: bigint, behind: bigint) => {
        const from = segmentStart(first, segmentSize);
        const to = segmentStart(behind, segmentSize);
        note(`${timeline} ${from} ${to}`, { timeline, from, to }, leaf);
      };
      for (const { segment } of byNumber.get(timeline)?.segments ?? []) {
        if (stop !== undefined && segment >= stop) break;
        if (next !== undefined && segment < next) continue;
        if (next !== undefined && segment > next) missing(next, segment);
        next = segment + 1n;
      }
      if (stop !== undefined && next !== undefined && next < stop) {
        missing(next, stop);
        next = stop;
      }
    }
  }
  const gaps = [...found.values()].sort((a, b) =>
    a.from === b.from ? a.timeline - b.timeline : a.from < b.from ? -1 : 1,
  );
  for (const gap of gaps) {
    const accepted = acceptedBy(gap, ledger?.gaps ?? []);
    if (accepted) gap.accepted = accepted;
  }
  return gaps;
}

/**
 * The WAL from the start of the segment in which a timeline begins up to there, if nothing of the
 * timeline was received yet and neither its parent has that segment nor another timeline.
 */
function missingBegin(
  leaf: CatalogTimeline,
  timelines: readonly CatalogTimeline[],
  segmentSize: number,
): SegmentGap | undefined {
  const parent = leaf.history?.ancestors.at(-1);
  if (!parent || leaf.segments.some(hasWal)) return undefined;
  const { timeline, end: to } = parent;
  const segment = segmentOf(to, segmentSize);
  const from = segmentStart(segment, segmentSize);
  const own = timelines.find((t) => t.timeline === timeline)?.segments;
  if (from === to || own?.some((s) => s.segment === segment)) return undefined;
  if (isRepeated(timeline, to, timelines, segmentSize)) return undefined;
  return { timeline: leaf.timeline, from, to };
}

/**
 * WAL that the ledger has as stored, and of which not even a partial file is here: behind the last
 * file of its timeline.
 */
export function missingEnd(
  timelines: readonly CatalogTimeline[],
  segmentSize: number,
  ledger: LedgerState | undefined,
): SegmentGap | undefined {
  const timeline = ledger?.timeline;
  const to = ledger && storedUpTo(ledger);
  if (timeline === undefined || to === undefined) return undefined;
  const newest = timelines.find((t) => t.timeline === timeline)?.segments.at(-1);
  const from = newest
    ? segmentStart(newest.segment + 1n, segmentSize)
    : ledger?.lineage.findLast((entry) => entry.timeline === timeline)?.start;
  return from !== undefined && from < to ? { timeline, from, to } : undefined;
}

/** False for what a receiver has created and not written into. */
function hasWal({ stored }: CatalogSegment): boolean {
  return stored?.contentLength !== 0;
}

/**
 * Up to where the WAL of a timeline must be in files of its own: the furthest that a history here
 * says it went, less what the first segment of the next timeline repeats.
 */
export function neededUpTo(
  timeline: number,
  timelines: readonly CatalogTimeline[],
  segmentSize: number,
): Lsn | undefined {
  let needed: Lsn | undefined;
  for (const { history } of timelines) {
    const end = history && timelineEnd(history, timeline);
    if (end === undefined) continue;
    const repeated = isRepeated(timeline, end, timelines, segmentSize);
    const own = repeated ? segmentStart(segmentOf(end, segmentSize), segmentSize) : end;
    if (needed === undefined || own > needed) needed = own;
  }
  return needed;
}

/** True if a later timeline has the segment in which this one ends, and so all of it up to there. */
function isRepeated(
  timeline: number,
  end: Lsn,
  timelines: readonly CatalogTimeline[],
  segmentSize: number,
): boolean {
  const last = segmentOf(end, segmentSize);
  return timelines.some(({ history, segments }) => {
    const branch = history && timelineEnd(history, timeline);
    return (
      branch !== undefined && branch >= end && segments.some((s) => s.segment === last && hasWal(s))
    );
  });
}

/**
 * The accepted gap that covers a gap. It may begin inside the last segment before, of which only a
 * part was received, and was accepted for the timeline on which receiving went on.
 */
function acceptedBy(gap: SegmentGap, entries: readonly GapEntry[]): GapEntry | undefined {
  return entries.find((e) => e.from <= gap.from && e.to >= gap.to && e.timeline >= gap.timeline);
}

/**
 * How a timeline stands to what the ledger has followed; undefined on its way, for one that goes on
 * where it ends, and where nothing tells.
 */
export function standsBeside(
  timeline: number,
  history: TimelineHistory | undefined,
  histories: readonly TimelineHistory[],
  ledger: LedgerState | undefined,
): Beside | undefined {
  const current = ledger?.timeline;
  if (!ledger || current === undefined || timeline === current) return undefined;
  const way = historyOf(current, histories, ledger);
  if (way && isInHistory(way, timeline)) return undefined;
  if (wasFollowed(ledger, timeline)) return way ? 'abandoned' : undefined;
  if (!history) return undefined;
  if (timeline < current) return way ? 'abandoned' : undefined;
  const left = timelineEnd(history, current);
  return left !== undefined && left >= (storedUpTo(ledger) ?? 0n) ? undefined : 'unfollowed';
}
