import { decoding, type Plan, type PlannedSegment } from '../archive/way/plan.js';
import { scanSegments } from '../archive/way/read.js';
import { DamageTolerantScan } from '../archive/way/scan.js';
import type { WalRecord } from '../wal/record.js';
import { parseRecordBody } from '../wal/records/record-body.js';
import type { TimestampTz } from '../wal/records/timestamp.js';
import { parseXactRecord, RM_XACT, XACT_OPMASK, XACT_PREPARE } from '../wal/records/xact.js';
import { CLOCK_SLACK } from './filter.js';

/**
 * Leaves out the segments that lie, by their first commits, well before a time: a search by halves,
 * which reads little of a few segments. Commits are nearly in the order of their times.
 */
export async function segmentsFromTime(
  plan: Plan,
  segments: readonly PlannedSegment[],
  time: TimestampTz,
  signal?: AbortSignal,
): Promise<PlannedSegment[]> {
  let low = 0;
  let high = segments.length;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    let first: TimestampTz | undefined;
    let at = middle;
    // A segment without a commit says nothing: the ones behind it do.
    for (; at < high && first === undefined; at++) {
      first = await firstTime(plan, segments[at]!, signal);
    }
    if (first !== undefined && first < time - CLOCK_SLACK) low = at - 1;
    else high = middle;
  }
  return segments.slice(low);
}

/** Time of the first commit or abort whose record is whole in a segment. */
async function firstTime(
  plan: Plan,
  segment: PlannedSegment,
  signal?: AbortSignal,
): Promise<TimestampTz | undefined> {
  let time: TimestampTz | undefined;
  const scan = new DamageTolerantScan(
    {
      ...decoding(plan),
      select: (rmgr, info) =>
        rmgr === RM_XACT && info !== XACT_PREPARE && (info & XACT_OPMASK) <= 0x40,
    },
    {
      damage: () => false,
      record(record, major) {
        time = timeOf(record, major);
        return time !== undefined;
      },
    },
  );
  await scanSegments(plan, [segment], scan, signal);
  return time;
}

function timeOf(record: WalRecord, major: number | undefined): TimestampTz | undefined {
  try {
    const { data } = parseRecordBody(record.body ?? new Uint8Array(0), { major });
    return parseXactRecord(record, data, major)?.time;
  } catch {
    // What it is, the reading proper will say.
    return undefined;
  }
}
