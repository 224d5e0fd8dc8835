import type { Lsn } from '../../lsn.js';
import { RMGR_INFO_MASK, XLOG_SWITCH } from '../record.js';
import { BodyReader, decodeText } from './body-reader.js';
import type { TimestampTz } from './timestamp.js';

/** Record types of resource manager XLOG that are read here (catalog/pg_control.h). */
export const XLOG_CHECKPOINT_SHUTDOWN = 0x00;
export const XLOG_CHECKPOINT_ONLINE = 0x10;
export const XLOG_RESTORE_POINT = 0x70;
export const XLOG_END_OF_RECOVERY = 0x90;

/** Bytes that rp_name has, its zero included (access/xlog_internal.h: MAXFNAMELEN). */
const NAME_SIZE = 64;

/**
 * CheckPoint (catalog/pg_control.h), 88 bytes; what a member means is the same in 14 to 18:
 * ```
 *  0  u64  redo               where replay has to begin
 *  8  u32  ThisTimeLineID
 * 12  u32  PrevTimeLineID
 * 16  u8   fullPageWrites
 * 20  u32  wal_level          since 17, zero before
 * 24  u64  nextXid            epoch in the upper half
 * 32  u32  nextOid
 * 36  u32  nextMulti, nextMultiOffset, oldestXid, oldestXidDB, oldestMulti, oldestMultiDB
 * 64  i64  time               seconds since 1970
 * 72  u32  oldestCommitTsXid, newestCommitTsXid
 * 80  u32  oldestActiveXid    0 if the checkpoint was not online
 * ```
 */
export interface Checkpoint {
  kind: 'checkpoint';
  /** Made by an orderly stop (or at the end of recovery): nothing was running. */
  shutdown: boolean;
  redo: Lsn;
  timeline: number;
  /** Another one than `timeline` if this record begins a timeline. */
  previousTimeline: number;
  fullPageWrites: boolean;
  nextXid: bigint;
  nextOid: number;
  nextMulti: number;
  nextMultiOffset: number;
  oldestXid: number;
  oldestXidDb: number;
  oldestMulti: number;
  oldestMultiDb: number;
  /** Seconds since 1970: when the checkpoint began. */
  time: bigint;
  oldestCommitTsXid: number;
  newestCommitTsXid: number;
  oldestActiveXid: number;
}

/** xl_restore_point: i64 rp_time, char rp_name[64]. */
export interface RestorePoint {
  kind: 'restore-point';
  time: TimestampTz;
  name: string;
}

/** xl_end_of_recovery: i64 end_time, u32 ThisTimeLineID, u32 PrevTimeLineID; since 17 wal_level. */
export interface EndOfRecovery {
  kind: 'end-of-recovery';
  time: TimestampTz;
  timeline: number;
  previousTimeline: number;
}

/** XLOG_SWITCH: the rest of the segment is unused. No contents. */
export interface SegmentSwitch {
  kind: 'switch';
}

export type XlogContents = Checkpoint | RestorePoint | EndOfRecovery | SegmentSwitch;

/**
 * The contents of a record of resource manager XLOG; undefined for types that are not read here.
 * @param info xl_info
 * @param data main data
 * @throws CorruptWalError if the data is too short or impossible
 */
export function parseXlogRecord(info: number, data: Uint8Array): XlogContents | undefined {
  switch (info & RMGR_INFO_MASK) {
    case XLOG_CHECKPOINT_SHUTDOWN:
      return readCheckpoint(data, true);
    case XLOG_CHECKPOINT_ONLINE:
      return readCheckpoint(data, false);
    case XLOG_RESTORE_POINT:
      return readRestorePoint(data);
    case XLOG_END_OF_RECOVERY:
      return readEndOfRecovery(data);
    case XLOG_SWITCH:
      return { kind: 'switch' };
    default:
      return undefined;
  }
}

function readCheckpoint(data: Uint8Array, shutdown: boolean): Checkpoint {
  const reader = new BodyReader(data, 'checkpoint record');
  const redo = reader.lsn();
  const timeline = reader.u32();
  const previousTimeline = reader.u32();
  if (timeline === 0 || previousTimeline === 0) throw reader.corrupt('timeline 0');
  const fullPageWrites = reader.u8() !== 0;
  reader.skip(7);
  const nextXid = reader.u64();
  const nextOid = reader.u32();
  const nextMulti = reader.u32();
  const nextMultiOffset = reader.u32();
  const oldestXid = reader.u32();
  const oldestXidDb = reader.u32();
  const oldestMulti = reader.u32();
  const oldestMultiDb = reader.u32();
  reader.skip(4);
  return {
    kind: 'checkpoint',
    shutdown,
    redo,
    timeline,
    previousTimeline,
    fullPageWrites,
    nextXid,
    nextOid,
    nextMulti,
    nextMultiOffset,
    oldestXid,
    oldestXidDb,
    oldestMulti,
    oldestMultiDb,
    time: reader.i64(),
    oldestCommitTsXid: reader.u32(),
    newestCommitTsXid: reader.u32(),
    oldestActiveXid: reader.u32(),
  };
}

function readRestorePoint(data: Uint8Array): RestorePoint {
  const reader = new BodyReader(data, 'restore point record');
  const time = reader.i64() as TimestampTz;
  const name = reader.bytes(NAME_SIZE);
  const end = name.indexOf(0);
  if (end < 0) throw reader.corrupt('its name has no end');
  return { kind: 'restore-point', time, name: decodeText(name.subarray(0, end)) };
}

function readEndOfRecovery(data: Uint8Array): EndOfRecovery {
  const reader = new BodyReader(data, 'end-of-recovery record');
  const time = reader.i64() as TimestampTz;
  const timeline = reader.u32();
  const previousTimeline = reader.u32();
  if (timeline === 0 || previousTimeline === 0) throw reader.corrupt('timeline 0');
  return { kind: 'end-of-recovery', time, timeline, previousTimeline };
}
