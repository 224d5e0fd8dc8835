import { UsageError } from '../../errors.js';
import type { Lsn } from '../../lsn.js';
import { segmentOf, segmentStart } from '../../wal/file-name.js';
import { rootHistory, type TimelineHistory, timelineEnd } from '../../wal/timeline.js';
import type { Archive } from '../archive.js';
import type { Catalog, SegmentGap } from '../catalog.js';
import { missingEnd } from '../catalog-lineage.js';

/** A file to read a segment from, as it was listed. */
export interface PlannedFile {
  name: string;
  partial: boolean;
  /** Behind its last byte that is on the way: earlier than the segment's end if its timeline ends. */
  end: Lsn;
}

/** One segment on the way of a timeline. */
export interface PlannedSegment {
  start: Lsn;
  /** The best first; the next one goes on where one ends too early. */
  files: PlannedFile[];
}

/** A timeline that begins on the way: the one that is followed there, or another. */
export interface Branch {
  /** First LSN that is on `child`. */
  lsn: Lsn;
  parent: number;
  child: number;
  followed: boolean;
  /** The server's words in the history file. */
  reason: string;
}

/** Where a segment on the way lies in a form that cannot be read. */
export interface UnreadPlace {
  name: string;
  from: Lsn;
  to: Lsn;
}

/** What to read for one timeline and its ancestors. */
export interface Plan {
  archive: Archive;
  timeline: number;
  history: TimelineHistory;
  /** The ancestors are not known: neither a history file nor the ledger tells. */
  orphan: boolean;
  /** Later timelines that were never received, and are passed by. */
  unfollowed: number[];
  segmentSize: number;
  systemId: bigint | undefined;
  /** Ascending; segments that are not there are left out. */
  segments: PlannedSegment[];
  /** Behind them, WAL that was stored, on the timeline or on a newer one that is to be followed. */
  missing: SegmentGap | undefined;
  /** Before and behind them, what is here only in forms that cannot be read; ascending. */
  unread: UnreadPlace[];
  /** Ascending by LSN. */
  branches: Branch[];
}

/**
 * Plans to read the WAL of a timeline from its oldest ancestor on, as a recovery to it would:
 * of a segment that several timelines have, the newest one's copy.
 * @param timeline default: the newest, of a receiver's archive the newest that it has followed
 * @throws UsageError if the archive does not have the timeline
 */
export function planTimeline(catalog: Catalog, timeline?: number): Plan {
  const withWal = catalog.timelines.filter((t) => t.segments.length > 0);
  // A clone's is not what the archive goes on with, however high its number.
  const newest = withWal.findLast((t) => !t.beside) ?? withWal.at(-1);
  const wanted = timeline ?? newest?.timeline;
  const entry = catalog.timelines.find((t) => t.timeline === wanted);
  if (!entry) {
    const what = timeline === undefined ? 'no WAL' : `no timeline ${timeline}`;
    const there = catalog.timelines.map((t) => t.timeline).join(', ');
    const unread = catalog.unread[0]?.name;
    const hint =
      there !== ''
        ? `It has these timelines: ${there}.`
        : unread && `"${unread}" is in a form that cannot be read.`;
    throw new UsageError(`directory "${catalog.archive.place}" has ${what}`, {
      path: catalog.archive.place,
      ...(hint === undefined ? {} : { hint }),
    });
  }
  const history = entry.history ?? rootHistory(entry.timeline);
  const missing = missingEnd(catalog.timelines, catalog.segmentSize, catalog.ledger);
  const newer = timeline === undefined && missing && missing.timeline > entry.timeline;
  const segments = plannedSegments(catalog, history);
  return {
    archive: catalog.archive,
    timeline: entry.timeline,
    history,
    orphan: entry.history === undefined,
    unfollowed: withWal
      .filter((t) => t.beside === 'unfollowed' && t.timeline > entry.timeline)
      .map((t) => t.timeline),
    segmentSize: catalog.segmentSize,
    systemId: catalog.systemId,
    segments,
    unread: unreadPlaces(catalog, history, segments, timeline === undefined),
    missing: newer || missing?.timeline === entry.timeline ? missing : undefined,
    branches: branchesOn(catalog, history),
  };
}

function plannedSegments(catalog: Catalog, history: TimelineHistory): PlannedSegment[] {
  const { segmentSize } = catalog;
  /** `held`: up to where the first file has good WAL. */
  const found = new Map<bigint, PlannedSegment & { held: bigint }>();
  let begin = 0n;
  for (const number of [...history.ancestors.map((a) => a.timeline), history.timeline]) {
    const timelineEnds = timelineEnd(history, number);
    const entry = catalog.timelines.find((t) => t.timeline === number);
    for (const { segment, files, stored } of entry?.segments ?? []) {
      const start = segmentStart(segment, segmentSize);
      const segmentEnd = segmentStart(segment + 1n, segmentSize);
      const end =
        timelineEnds !== undefined && timelineEnds < segmentEnd ? timelineEnds : segmentEnd;
      if (segment < segmentOf(begin, segmentSize) || start >= end) continue;
      const own = files.map(({ name, partial }) => {
        return { name, partial, end };
      });
      const measured = stored && start + BigInt(stored.validLength);
      const held = measured !== undefined && measured < end ? measured : end;
      // The child's copy of the segment in which its parent ends has the parent's part as well,
      // unless it was only begun.
      const parent = found.get(segment);
      if (!parent) found.set(segment, { start, files: own, held });
      else if (parent.held > held) parent.files.push(...own);
      else found.set(segment, { start, files: [...own, ...parent.files], held });
    }
    begin = timelineEnds ?? begin;
  }
  return [...found.values()].sort((a, b) => (a.start < b.start ? -1 : 1));
}

/**
 * Of a gap between segments reading tells by itself.
 * @param later also those of a later timeline, which would be the one that is followed
 */
function unreadPlaces(
  { unread, timelines, segmentSize }: Catalog,
  history: TimelineHistory,
  segments: readonly PlannedSegment[],
  later: boolean,
): UnreadPlace[] {
  const [first, last] = [segments[0], segments.at(-1)];
  const ended = last?.files.some((file) => !file.partial) ?? false;
  const places: UnreadPlace[] = [];
  for (const { name, timeline, segment } of unread) {
    const from = segmentStart(segment, segmentSize);
    const to = segmentStart(segment + 1n, segmentSize);
    const end = timelineEnd(history, timeline);
    const beside = timelines.find((t) => t.timeline === timeline)?.beside !== undefined;
    const onWay = timeline === history.timeline || (end !== undefined && from < end);
    const outside =
      !first || !last || from < first.start || from > last.start || (from === last.start && !ended);
    const follows = later && timeline > history.timeline && !beside;
    if ((onWay && outside) || follows) places.push({ name, from, to });
  }
  return places;
}

function branchesOn(catalog: Catalog, history: TimelineHistory): Branch[] {
  const branches = new Map<number, Branch>();
  for (const { timeline, history: other } of catalog.timelines) {
    const ancestors = other?.ancestors ?? [];
    ancestors.forEach(({ timeline: parent, end, reason }, i) => {
      const child = ancestors[i + 1]?.timeline ?? timeline;
      const ours = history.timeline === parent || timelineEnd(history, parent) !== undefined;
      const ourEnd = timelineEnd(history, parent);
      if (!ours || (ourEnd !== undefined && end > ourEnd)) return;
      const followed = child === history.timeline || timelineEnd(history, child) !== undefined;
      if (!branches.has(child)) branches.set(child, { lsn: end, parent, child, followed, reason });
    });
  }
  return [...branches.values()].sort((a, b) =>
    a.lsn === b.lsn ? a.child - b.child : a.lsn < b.lsn ? -1 : 1,
  );
}

/** What a decoder has to know of the way that is followed. */
export function decoding({ segmentSize, systemId, timeline, history, orphan }: Plan) {
  return { segmentSize, systemId, timeline, history: orphan ? undefined : history };
}
