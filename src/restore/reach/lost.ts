import type { Catalog, CatalogTimeline } from '../../archive/catalog.js';
import type { LocatedTarget } from '../../archive/targets/target.js';
import { placeAt, WayMarks } from '../../archive/targets/way-marks.js';
import type { Mark } from '../../archive/way/marks.js';
import { type Plan, planTimeline } from '../../archive/way/plan.js';
import type { Lsn } from '../../lsn.js';
import type { TimestampTz } from '../../wal/records/timestamp.js';
import { commonTimeline, isInHistory, rootHistory, timelineEnd } from '../../wal/timeline.js';

/** Segments in which commits are counted, and bytes of them. */
const MOST_SEGMENTS = 32;
const MOST_BYTES = 256 * 1024 * 1024;
/** Timelines that are looked at. */
const MOST_TIMELINES = 16;

/** What of an archive a recovery to a target leaves out. */
export interface Lost {
  /** Commits on the way behind the target; absent: there is too much WAL to count them. */
  commits?: number;
  /** The last of them. */
  last?: { lsn: Lsn; time: TimestampTz; xid?: number };
  /** WAL is missing behind the target, or cannot be read: more commits may have been there. */
  isTorn: boolean;
  /** Segments that have WAL of the way behind the target. */
  segments: number;
  /** What is on other timelines. */
  beside: LostTimeline[];
}

/** WAL of a timeline that the way does not lead through. */
export interface LostTimeline {
  timeline: number;
  /** Where it and the way part. */
  from: Lsn;
  /** The last commit behind that. */
  last?: { lsn: Lsn; time: TimestampTz; xid?: number };
}

/** @throws what an archive throws */
export async function lostBehind(
  catalog: Catalog | undefined,
  located: Pick<LocatedTarget, 'lsn' | 'timeline' | 'setting'>,
  signal?: AbortSignal,
): Promise<Lost> {
  if (!catalog) return { commits: 0, isTorn: false, segments: 0, beside: [] };
  const plan = planTimeline(catalog, located.timeline);
  const beside = await lostBeside(catalog, plan, signal);
  // Recovery goes on to the end of all that is here.
  if (!located.setting) return { commits: 0, isTorn: false, segments: 0, beside };
  return { ...(await lostOn(plan, located.lsn, signal)), beside };
}

async function lostOn(
  plan: Plan,
  from: Lsn,
  signal: AbortSignal | undefined,
): Promise<Omit<Lost, 'beside'>> {
  const size = BigInt(plan.segmentSize);
  const before = placeAt(plan.segments, from);
  const first = before >= 0 && plan.segments[before]!.start + size > from ? before : before + 1;
  const behind = plan.segments.length;
  const segments = behind - first;
  if (segments === 0) return { commits: 0, isTorn: plan.missing !== undefined, segments };
  const marks = new WayMarks(plan, { from, first, behind }, undefined, signal);
  let isTorn =
    plan.missing !== undefined ||
    plan.segments.some(
      ({ start }, at) => at > first && start !== plan.segments[at - 1]!.start + size,
    );
  if (segments > MOST_SEGMENTS || segments * plan.segmentSize > MOST_BYTES) {
    const { last } = await marks.around(END);
    return { isTorn, segments, ...(last ? { last: pointOf(last) } : {}) };
  }
  let commits = 0;
  let last: Mark | undefined;
  for (let at = first; at < behind; at++) {
    const { marks: found, damage } = await marks.at(at);
    const committed = found.filter(({ kind }) => kind === 'commit');
    commits += committed.length;
    last = committed.at(-1) ?? last;
    if (damage) isTorn = true;
  }
  return { commits, isTorn, segments, ...(last ? { last: pointOf(last) } : {}) };
}

async function lostBeside(
  catalog: Catalog,
  { timeline, history }: Plan,
  signal: AbortSignal | undefined,
): Promise<LostTimeline[]> {
  const found: LostTimeline[] = [];
  const others = catalog.timelines.filter((t) => t.timeline !== timeline && t.segments.length > 0);
  for (const other of others.slice(-MOST_TIMELINES)) {
    const from = partOf(other, history);
    const last = await lastBehind(catalog, other, from, signal);
    const reaches = last !== undefined || !isInHistory(history, other.timeline);
    if (reaches)
      found.push({ timeline: other.timeline, from, ...(last ? { last: pointOf(last) } : {}) });
  }
  return found;
}

/** The first byte of a timeline that the way does not have. */
function partOf(
  { timeline, history = rootHistory(timeline) }: CatalogTimeline,
  way: Plan['history'],
) {
  const common = commonTimeline(way, history);
  if (common === undefined) return 0n as Lsn;
  const ends = [way, history].flatMap((one) => timelineEnd(one, common) ?? []);
  return ends.reduce((a, b) => (a < b ? a : b), END);
}

async function lastBehind(
  catalog: Catalog,
  { timeline }: CatalogTimeline,
  from: Lsn,
  signal: AbortSignal | undefined,
): Promise<Mark | undefined> {
  const plan = planTimeline(catalog, timeline);
  const behind = plan.segments.length;
  const first = Math.max(0, placeAt(plan.segments, from));
  if (first >= behind) return undefined;
  const { last } = await new WayMarks(plan, { from, first, behind }, undefined, signal).around(END);
  return last;
}

const END = 0xffff_ffff_ffff_ffffn as Lsn;

/** Of a commit. */
export function pointOf(mark: Mark): { lsn: Lsn; time: TimestampTz; xid?: number } {
  const { lsn, time } = mark;
  return 'xid' in mark ? { lsn, time, xid: mark.xid } : { lsn, time };
}
