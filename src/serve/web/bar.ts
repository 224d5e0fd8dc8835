import { parseLsn } from '../../lsn.js';
import type { ArchiveStatus, GapStatus, ServerStatus, TimelineStatus } from '../status.js';
import { type Tick, ticksOf } from './axis.js';

/**
 * - `window`: every moment of it can be restored, as the archive was read
 * - `live`: behind the last window, received since and durable
 * - `beside`: every moment of it can be restored, but on a timeline that is not followed
 * - `wal`: WAL that no usable backup comes before
 * - `gap`: WAL is missing
 * - `behind`: the server may have WAL of it that is not durable here
 */
export type SegmentKind = 'window' | 'live' | 'beside' | 'wal' | 'gap' | 'behind';

export interface Segment {
  kind: SegmentKind;
  /** On the bar, 0 to 1. Segments are in order and do not overlap. */
  x0: number;
  x1: number;
  /** The times that it stands for, in milliseconds, which another segment may lie over. */
  from: number;
  to: number;
  /** All gaps of it are accepted. */
  accepted?: boolean;
  /** So many gaps, too close to each other to be drawn each by itself. */
  gaps?: number;
}

export interface Mark {
  kind: 'backup' | 'fork';
  x: number;
  at: number;
  label: string;
  /** Of a backup: something can be restored from it. */
  usable: boolean;
  full: boolean;
}

/** Recoverability over time: what can be restored, what is missing, and where it branched. */
export interface Bar {
  from: number;
  to: number;
  segments: readonly Segment[];
  marks: readonly Mark[];
  ticks: readonly Tick[];
}

/** A gap, or an alarm, is at least so wide, which is 2 pixels of the narrowest bar. */
export const LEAST = 1 / 140;
/** Shorter ranges are drawn as long as this. */
const SHORTEST = 2 * 60_000;
/** Marks closer than this are drawn as one. */
const CLOSE = 1 / 250;

interface Interval {
  kind: SegmentKind;
  from: number;
  to: number;
  accepted?: boolean;
}

/** Later ones are drawn over earlier ones. */
const ORDER: readonly SegmentKind[] = ['behind', 'wal', 'beside', 'live', 'window', 'gap'];

export type Drawn = Pick<ServerStatus, 'archive' | 'receiver' | 'rpoSeconds' | 'rpoLimitSeconds'>;

/** Undefined: there is nothing to draw. @param now milliseconds since 1970 */
export function barOf(
  { archive, receiver, rpoSeconds, rpoLimitSeconds }: Drawn,
  now: number,
): Bar | undefined {
  if (archive?.readAt === undefined) return undefined;
  const gaps = archive.gaps.map((gap) => gapTimes(gap, archive.timelines));
  const wal = archive.timelines.flatMap(({ ranges }) =>
    ranges.flatMap(({ firstCommit, lastCommit }) => interval('wal', firstCommit, lastCommit)),
  );
  const windows = archive.windows.flatMap(({ from, to }) => interval('window', from, to));
  const beside = archive.besideWindows.flatMap(({ from, to }) => interval('beside', from, to));
  const marks = marksOf(archive);
  const known = [...wal, ...windows, ...beside].flatMap(({ from, to }) => [from, to]);
  const edges = gaps.flatMap(({ from, to }) => [from, to].filter((at) => at !== undefined));
  const all = [...known, ...edges, ...marks.map(({ at }) => at)];
  if (all.length === 0 && gaps.length === 0) return undefined;
  const from = Math.min(now - SHORTEST, ...all);
  const x = (at: number) => Math.min(1, Math.max(0, (at - from) / (now - from)));
  const placed = gaps.map(
    ({ from: gapFrom = from, to: gapTo = now, accepted }): Interval => ({
      ...{ kind: 'gap', from: Math.min(gapFrom, gapTo), to: Math.max(gapFrom, gapTo), accepted },
    }),
  );
  const latest = windows.reduce<Interval | undefined>(
    (last, one) => (last && last.to >= one.to ? last : one),
    undefined,
  );
  const end = Math.max(from, ...known, ...placed.map(({ to }) => to));
  const isSeen = receiver?.recoveryAge !== undefined;
  const safe = isSeen ? Math.min(now, now - rpoSeconds * 1000) : end;
  // Windows are looked for less often than WAL comes: what follows the last one without a gap belongs
  // to it, as far as it is durable.
  const continues =
    latest !== undefined &&
    placed.every(({ to }) => to <= latest.to) &&
    receiver?.position?.timeline === archive.latest;
  const tail: Interval[] =
    isSeen && known.length > 0
      ? [
          continues
            ? { kind: 'live', from: latest.to, to: Math.max(latest.to, safe) }
            : { kind: 'wal', from: end, to: Math.max(end, safe) },
        ]
      : [];
  const behind: Interval = { kind: 'behind', from: Math.min(now, Math.max(end, safe)), to: now };
  const intervals = [behind, ...wal, ...tail, ...beside, ...windows];
  return {
    ...{ from, to: now, ticks: ticksOf(from, now) },
    segments: segmentsOf(intervals, placed, x, rpoSeconds > rpoLimitSeconds),
    marks: apart(marks.map((mark) => ({ ...mark, x: x(mark.at) }))),
  };
}

function interval(kind: SegmentKind, from?: string, to?: string): Interval[] {
  const [start, end] = [timeOf(from), timeOf(to)];
  if (start === undefined || end === undefined) return [];
  return [{ kind, from: Math.min(start, end), to: Math.max(start, end) }];
}

function timeOf(text: string | undefined): number | undefined {
  const at = text === undefined ? Number.NaN : Date.parse(text);
  return Number.isNaN(at) ? undefined : at;
}

function lsnOf(text: string): bigint {
  try {
    return parseLsn(text);
  } catch {
    return 0n;
  }
}

/** Where no commit is next to a gap, the next one beyond counts. Undefined: there is none at all. */
function gapTimes(
  { timeline, from, to, after, before, accepted }: GapStatus,
  timelines: readonly TimelineStatus[],
): { from: number | undefined; to: number | undefined; accepted: boolean } {
  const ranges = timelines.find((one) => one.timeline === timeline)?.ranges ?? [];
  const [start, end] = [lsnOf(from), lsnOf(to)];
  const commits = (of: typeof ranges) =>
    of
      .flatMap(({ firstCommit, lastCommit }) => [timeOf(firstCommit), timeOf(lastCommit)])
      .filter((at) => at !== undefined);
  const earlier = commits(ranges.filter((range) => lsnOf(range.to) <= start));
  const later = commits(ranges.filter((range) => lsnOf(range.from) >= end));
  return {
    from: timeOf(after) ?? (earlier.length > 0 ? Math.max(...earlier) : undefined),
    to: timeOf(before) ?? (later.length > 0 ? Math.min(...later) : undefined),
    accepted,
  };
}

type Placed = Segment & { over: number };

function segmentsOf(
  intervals: readonly Interval[],
  gaps: readonly Interval[],
  x: (at: number) => number,
  isLate: boolean,
): Segment[] {
  const drawn: Placed[] = [
    ...intervals.map(({ kind, from, to }): Placed => {
      const over = ORDER.indexOf(kind);
      if (kind !== 'behind' || !isLate) return { kind, from, to, x0: x(from), x1: x(to), over };
      // What is an alarm is seen, however short it is beside the rest.
      return { kind, from, to, x0: Math.min(x(from), 1 - LEAST), x1: 1, over: ORDER.length };
    }),
    ...widened(gaps, x),
  ];
  const edges = [...new Set(drawn.flatMap(({ x0, x1 }) => [x0, x1]))].sort((a, b) => a - b);
  const starting = [...drawn].sort((a, b) => a.x0 - b.x0);
  let active: Placed[] = [];
  let next = 0;
  const out: { source: Placed; segment: Segment }[] = [];
  for (let i = 0; i + 1 < edges.length; i += 1) {
    const [x0, x1] = [edges[i] as number, edges[i + 1] as number];
    while (next < starting.length && (starting[next] as Placed).x0 <= x0) {
      active.push(starting[next] as Placed);
      next += 1;
    }
    active = active.filter((one) => one.x1 > x0);
    const top = active.reduce<Placed | undefined>(
      (best, one) => (best && best.over >= one.over ? best : one),
      undefined,
    );
    if (!top) continue;
    const last = out.at(-1);
    if (last?.source === top && last.segment.x1 === x0) last.segment.x1 = x1;
    else {
      const { over: _, ...segment } = top;
      out.push({ source: top, segment: { ...segment, x0, x1 } });
    }
  }
  return out.map(({ segment }) => segment);
}

/** Each wide enough to be seen; those that then touch are one. */
function widened(gaps: readonly Interval[], x: (at: number) => number): Placed[] {
  const wide = gaps
    .map(({ from, to, accepted = false }) => {
      const [start, end] = [x(from), x(to)];
      if (end - start >= LEAST) return { from, to, accepted, x0: start, x1: end };
      const x0 = Math.min(Math.max(0, (start + end - LEAST) / 2), 1 - LEAST);
      return { from, to, accepted, x0, x1: x0 + LEAST };
    })
    .sort((a, b) => a.x0 - b.x0);
  const out: Placed[] = [];
  for (const { from, to, accepted, x0, x1 } of wide) {
    const last = out.at(-1);
    if (last && x0 <= last.x1) {
      last.x1 = Math.max(last.x1, x1);
      last.from = Math.min(last.from, from);
      last.to = Math.max(last.to, to);
      last.accepted = last.accepted === true && accepted;
      last.gaps = (last.gaps ?? 1) + 1;
    } else {
      out.push({ ...{ kind: 'gap', x0, x1, from, to, accepted, gaps: 1 }, over: ORDER.length + 1 });
    }
  }
  return out;
}

function marksOf({ backups, timelines }: ArchiveStatus): Omit<Mark, 'x'>[] {
  const taken = backups.flatMap(({ id, type, endedAt, startedAt, restorableTo }) => {
    const at = timeOf(endedAt) ?? timeOf(startedAt);
    if (at === undefined) return [];
    const [usable, full] = [restorableTo !== undefined, type === 'full'];
    return [{ kind: 'backup' as const, at, label: id, usable, full }];
  });
  const forks = timelines.flatMap(({ timeline, parent, ranges }) => {
    if (parent === undefined) return [];
    const own = ranges.map(({ firstCommit }) => timeOf(firstCommit)).find((at) => at !== undefined);
    const before = timelines
      .find((one) => one.timeline === parent)
      ?.ranges.map(({ lastCommit }) => timeOf(lastCommit))
      .filter((at) => at !== undefined);
    const at = own ?? before?.at(-1);
    if (at === undefined) return [];
    return [{ kind: 'fork' as const, at, label: `TL ${timeline}`, usable: true, full: true }];
  });
  return [...taken, ...forks];
}

/** Where many are at one place, the one that says most stands for all. */
function apart(marks: readonly Mark[]): Mark[] {
  const weight = ({ usable, full }: Mark) => (usable ? 2 : 0) + (full ? 1 : 0);
  const out: Mark[] = [];
  for (const kind of ['backup', 'fork'] as const) {
    let last: Mark | undefined;
    const own = marks.filter((mark) => mark.kind === kind).sort((a, b) => a.x - b.x);
    for (const mark of own) {
      if (last && mark.x - last.x < CLOSE) {
        if (weight(mark) <= weight(last)) continue;
        out.pop();
      }
      out.push(mark);
      last = mark;
    }
  }
  return out;
}
