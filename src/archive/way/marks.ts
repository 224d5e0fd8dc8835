import { CorruptWalError } from '../../errors.js';
import type { Lsn } from '../../lsn.js';
import { RM_XLOG, RMGR_INFO_MASK, type WalRecord } from '../../wal/record.js';
import { parseRecordBody } from '../../wal/records/record-body.js';
import { type TimestampTz, timestampFromSeconds } from '../../wal/records/timestamp.js';
import {
  parseXactRecord,
  RM_XACT,
  XACT_ABORT_PREPARED,
  XACT_OPMASK,
} from '../../wal/records/xact.js';
import {
  parseXlogRecord,
  XLOG_CHECKPOINT_ONLINE,
  XLOG_END_OF_RECOVERY,
  XLOG_RESTORE_POINT,
} from '../../wal/records/xlog-records.js';
import { decoding, type Plan } from './plan.js';
import { feedSegment, finish } from './read.js';
import { type Damage, DamageTolerantScan } from './scan.js';

interface Place {
  /** The record's first byte. */
  lsn: Lsn;
  /** Where the next record can begin. */
  endLsn: Lsn;
  time: TimestampTz;
}

/** The end of a transaction: what recovery_target_time and recovery_target_xid are compared with. */
export interface EndMark extends Place {
  kind: 'commit' | 'abort';
  /** Of a prepared transaction its own, not that of the session that ended it. */
  xid: number;
}

/** A named restore point. */
export interface PointMark extends Place {
  kind: 'point';
  name: string;
}

/**
 * Another record with a time: a checkpoint (when it began, in whole seconds), a PREPARE, the end of a
 * recovery. Recovery does not stop at it; it says how late it was when it was written.
 */
export interface ClockMark extends Place {
  kind: 'clock';
}

export type Mark = EndMark | PointMark | ClockMark;

export function isEnd(mark: Mark): mark is EndMark {
  return mark.kind === 'commit' || mark.kind === 'abort';
}

/** What recovery could stop at in the records that begin in one segment. */
export interface SegmentMarks {
  start: Lsn;
  /** In the order of the WAL. */
  marks: Mark[];
  /** Up to here its WAL was read and is good. */
  end: Lsn;
  /** Why that is before the segment's end, where more of the way follows or should. */
  damage?: Damage;
  /** A record begins in it that may be a mark, and whose end is not here. */
  torn: boolean;
  /** Files of how many segments were read: the last record may end in the next one. */
  segments: number;
}

/** Which records are marks, or may be. */
export function isMark(rmgr: number, info: number): boolean {
  const type = info & RMGR_INFO_MASK;
  if (rmgr === RM_XACT) return (info & XACT_OPMASK) <= XACT_ABORT_PREPARED;
  return (
    rmgr === RM_XLOG &&
    (type <= XLOG_CHECKPOINT_ONLINE || type === XLOG_RESTORE_POINT || type === XLOG_END_OF_RECOVERY)
  );
}

/** @throws CorruptWalError if its contents are not what its type says */
export function markOf(record: WalRecord, major: number | undefined): Mark | undefined {
  const { lsn, endLsn, rmgr, info } = record;
  if (!isMark(rmgr, info)) return undefined;
  if (!record.body) throw new CorruptWalError('record is too long to be read', { lsn });
  const { data } = parseRecordBody(record.body, { major });
  if (rmgr === RM_XACT) {
    const found = parseXactRecord(record, data, major);
    if (!found) return undefined;
    const { kind, time, xid } = found;
    return kind === 'prepare'
      ? { kind: 'clock', lsn, endLsn, time }
      : { kind, lsn, endLsn, time, xid };
  }
  const found = parseXlogRecord(info, data);
  switch (found?.kind) {
    case 'checkpoint':
      return { kind: 'clock', lsn, endLsn, time: timestampFromSeconds(found.time) };
    case 'restore-point':
      return { kind: 'point', lsn, endLsn, time: found.time, name: found.name };
    case 'end-of-recovery':
      return { kind: 'clock', lsn, endLsn, time: found.time };
    default:
      return undefined;
  }
}

/** xl_rmid and xl_info lie at the end of what a record's header is told by. */
export const RECORD_HEADER = 24n;

/**
 * Reads the marks of one segment of a way. A record that begins in it and ends in the next one is its
 * own. What lies behind damage is not looked at: recovery ends there.
 * @throws the signal's reason, and what an archive throws that cannot be asked
 */
export async function readMarks(
  plan: Plan,
  at: number,
  signal?: AbortSignal,
): Promise<SegmentMarks> {
  const segment = plan.segments[at]!;
  const next = plan.segments[at + 1];
  const border = (segment.start + BigInt(plan.segmentSize)) as Lsn;
  const marks: Mark[] = [];
  let damage: Damage | undefined;
  /** The record that was begun last is one of ours, and is not whole yet. */
  let open = false;
  const select = (rmgr: number, info: number): boolean => {
    open = isMark(rmgr, info);
    return open;
  };
  const scan = new DamageTolerantScan(
    { ...decoding(plan), select, until: border },
    {
      record(record, major) {
        open = false;
        if (record.lsn >= border) return true;
        try {
          const mark = markOf(record, major);
          if (mark) marks.push(mark);
          return false;
        } catch (e) {
          const { lsn } = record;
          damage ??= { kind: 'damage', lsn, from: lsn, message: (e as Error).message };
          return true;
        }
      },
      damage(found) {
        damage ??= found;
        return true;
      },
    },
  );
  let told = await feedSegment(plan, segment, scan, signal);
  let segments = 1;
  let last = segment;
  const full = scan.position === border;
  const validEnd = scan.validEnd ?? segment.start;
  const headless = validEnd < border && border - validEnd < RECORD_HEADER;
  const follows = next?.start === border;
  if (follows && full && !scan.enough) {
    scan.endSegment();
    if (open || headless) {
      segments = 2;
      last = next;
      told = await feedSegment(plan, next, scan, signal);
    } else scan.finish({ mayEnd: false });
  }
  // In the next segment others may have been begun by now.
  const torn = segments === 1 ? open || headless : (scan.validEnd ?? border) <= border;
  if (!scan.enough && !(follows && full && last === segment)) finish(last, scan, told);
  if (!damage && follows && !full) {
    const from = scan.position!;
    damage = { kind: 'damage', lsn: from, from, message: 'WAL is missing' };
  }
  // Behind the border nothing is this segment's own.
  if (damage && damage.lsn >= border) damage = undefined;
  const good = damage ? damage.from : (scan.validEnd ?? segment.start);
  const end = !damage && follows ? border : good;
  return { start: segment.start, marks, end, torn, segments, ...(damage ? { damage } : {}) };
}
