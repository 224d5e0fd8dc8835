import type { SyntheticRecord } from '../wal/synthetic.js';

/** Bodies of records that recovery can stop at, as access/xact.h and catalog/pg_control.h have them. */

/** Main data in a record without block references. */
function withData(data: Buffer): Buffer {
  return Buffer.concat([Buffer.from([255, data.length]), data]);
}

const RM_XLOG = 0;
const RM_XACT = 1;

export function commitRecord(xid: number, time: bigint): SyntheticRecord {
  return { rmgr: RM_XACT, info: 0x00, xid, body: withData(timeOf(time)) };
}

/** A commit with subtransactions, which make it long. */
export function largeCommitRecord(xid: number, time: bigint, subxids: number): SyntheticRecord {
  const data = Buffer.alloc(16 + 4 * subxids);
  timeOf(time).copy(data);
  data.writeUInt32LE(1 << 1, 8);
  data.writeInt32LE(subxids, 12);
  const head = Buffer.alloc(5);
  head.writeUInt8(254);
  head.writeUInt32LE(data.length, 1);
  return { rmgr: RM_XACT, info: 0x80, xid, body: Buffer.concat([head, data]) };
}

export function abortRecord(xid: number, time: bigint): SyntheticRecord {
  return { rmgr: RM_XACT, info: 0x20, xid, body: withData(timeOf(time)) };
}

/** COMMIT PREPARED or ROLLBACK PREPARED of `xid`, by a session that has none itself. */
export function preparedRecord(
  kind: 'commit' | 'abort',
  xid: number,
  time: bigint,
): SyntheticRecord {
  const data = Buffer.alloc(16);
  timeOf(time).copy(data);
  data.writeUInt32LE(1 << 4, 8);
  data.writeUInt32LE(xid, 12);
  const info = (kind === 'commit' ? 0x30 : 0x40) | 0x80;
  return { rmgr: RM_XACT, info, xid: 0, body: withData(data) };
}

export function restorePointRecord(name: string, time: bigint): SyntheticRecord {
  const data = Buffer.alloc(72);
  timeOf(time).copy(data);
  data.write(name, 8);
  return { rmgr: RM_XLOG, info: 0x70, xid: 0, body: withData(data) };
}

/** @param seconds since 1970 */
export function checkpointRecord(redo: bigint, seconds: bigint, timeline = 1): SyntheticRecord {
  const data = Buffer.alloc(88);
  data.writeBigUInt64LE(redo, 0);
  data.writeUInt32LE(timeline, 8);
  data.writeUInt32LE(timeline, 12);
  data.writeBigInt64LE(seconds, 64);
  return { rmgr: RM_XLOG, info: 0x10, xid: 0, body: withData(data) };
}

export const switchRecord: SyntheticRecord = {
  rmgr: RM_XLOG,
  info: 0x40,
  xid: 0,
  body: Buffer.alloc(0),
};

function timeOf(time: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64LE(time);
  return bytes;
}
