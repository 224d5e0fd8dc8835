import { formatLsn, type Lsn } from '../../lsn.js';
import { segmentOf, segmentStart } from '../../wal/file-name.js';
import type { TimestampTz } from '../../wal/records/timestamp.js';
import { isInHistory, timelineEnd } from '../../wal/timeline.js';
import type { Catalog } from '../catalog.js';
import { type Plan, planTimeline } from '../way/plan.js';
import type { UnreachableTarget } from './target.js';
import { placeAt } from './way-marks.js';

/** A backup, as far as a way begins with it. */
export interface WayBegin {
  /** Its end: recovery must come this far. */
  lsn: Lsn;
  /** The timeline of `lsn`. */
  timeline: number;
  /** Where its replay begins; default: `lsn`. */
  redo?: Lsn | undefined;
  /** The server's clock at its end. */
  time?: TimestampTz | undefined;
}

/** A hole on a way, or its end. */
export interface WayStretch {
  plan: Plan;
  /** Replay begins here. */
  from: Lsn;
  /** In the segment at this place. */
  first: number;
  /** Behind the last place without a segment missing before it. */
  behind: number;
  /** What is missing behind it; undefined at the end of all that is here. */
  gap: { from: Lsn; to: Lsn } | undefined;
}

/**
 * The way from a backup to a timeline, up to the first segment that is missing.
 * @throws UsageError if the archive does not have the timeline
 */
export function wayFrom(
  catalog: Catalog,
  begin: WayBegin,
  timeline?: number,
): { stretch: WayStretch } | { unreachable: UnreachableTarget } {
  const plan = planTimeline(catalog, timeline);
  const { history, segments, segmentSize } = plan;
  const from = begin.redo !== undefined && begin.redo < begin.lsn ? begin.redo : begin.lsn;
  const ends = timelineEnd(history, begin.timeline);
  const left = ends !== undefined && ends < begin.lsn;
  if (!isInHistory(history, begin.timeline) || left) {
    return { unreachable: offBranch(catalog, plan, begin) };
  }
  const start = segmentStart(segmentOf(from, segmentSize), segmentSize);
  const first = placeAt(segments, from);
  if (segments[first]?.start !== start) {
    const to = segments[first + 1]?.start;
    const message = `the backup needs WAL from ${formatLsn(from)} on, and ${to === undefined ? 'none of it' : `only what begins at ${formatLsn(to)}`} is here`;
    return { unreachable: { reason: 'in-gap', message, notes: [], segmentsRead: 0 } };
  }
  let behind = first + 1;
  const size = BigInt(segmentSize);
  while (segments[behind]?.start === segments[behind - 1]!.start + size) behind++;
  const end = (segments[behind - 1]!.start + size) as Lsn;
  const next = segments[behind];
  const gap = next ? { from: end, to: next.start } : plan.missing;
  return { stretch: { plan, from, first, behind, gap } };
}

function offBranch(catalog: Catalog, plan: Plan, begin: WayBegin): UnreachableTarget {
  const { timeline, history } = plan;
  const others = catalog.timelines
    .filter(({ history: other }) => other && isInHistory(other, begin.timeline))
    .filter(({ history: other }) => {
      const end = timelineEnd(other!, begin.timeline);
      return end === undefined || end >= begin.lsn;
    })
    .map((t) => t.timeline);
  const left = timelineEnd(history, begin.timeline);
  const why =
    left === undefined
      ? `timeline ${timeline} does not come from timeline ${begin.timeline}`
      : `timeline ${timeline} leaves timeline ${begin.timeline} at ${formatLsn(left)}`;
  const to = others.at(-1);
  return {
    reason: 'not-on-branch',
    notes: [],
    segmentsRead: 0,
    message: `${why}, and the backup ends on that at ${formatLsn(begin.lsn)}`,
    ...(to === undefined
      ? {}
      : { nearest: { lsn: begin.lsn, hint: `Take --timeline ${to}, or an earlier backup.` } }),
  };
}
