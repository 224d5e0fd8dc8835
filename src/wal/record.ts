import type { Lsn } from '../lsn.js';

/** Size of XLogRecord in bytes (access/xlogrecord.h: SizeOfXLogRecord). */
export const RECORD_HEADER_SIZE = 24;

/**
 * No record can be longer: before PostgreSQL 16 MaxAllocSize bounds it, since then the smaller
 * XLogRecordMaxSize.
 */
export const MAX_RECORD_LENGTH = 0x3fff_ffff;

/** Bits of xl_info that belong to the resource manager (XLR_RMGR_INFO_MASK). */
export const RMGR_INFO_MASK = 0xf0;

/** Resource manager 0 and two of its record types (catalog/pg_control.h). */
export const RM_XLOG = 0;
export const XLOG_SWITCH = 0x40;
export const XLOG_OVERWRITE_CONTRECORD = 0xd0;

/** Smallest id of a resource manager that an extension brings (RM_MIN_CUSTOM_ID). */
export const MIN_CUSTOM_RMGR = 128;

/** Names of the built-in resource managers by id (access/rmgrlist.h), as pg_waldump prints them. */
export const RMGR_NAMES: readonly string[] = [
  'XLOG',
  'Transaction',
  'Storage',
  'CLOG',
  'Database',
  'Tablespace',
  'MultiXact',
  'RelMap',
  'Standby',
  'Heap2',
  'Heap',
  'Btree',
  'Hash',
  'Gin',
  'Gist',
  'Sequence',
  'SPGist',
  'BRIN',
  'CommitTs',
  'ReplicationOrigin',
  'Generic',
  'LogicalMessage',
];

/** Name of a resource manager; `customNNN` from 128 on, `unknownNNN` for ids in between. */
export function rmgrName(id: number): string {
  const kind = id >= MIN_CUSTOM_RMGR ? 'custom' : 'unknown';
  return RMGR_NAMES[id] ?? `${kind}${String(id).padStart(3, '0')}`;
}

/**
 * XLogRecord, little-endian:
 * ```
 *  0  u32  xl_tot_len   whole record, this header included
 *  4  u32  xl_xid
 *  8  u64  xl_prev      start of the record before
 * 16  u8   xl_info      upper four bits are the resource manager's
 * 17  u8   xl_rmid
 * 18  u16  zero
 * 20  u32  xl_crc       CRC-32C of the body, then of bytes 0 to 19
 * ```
 */
export interface RecordHeader {
  totalLength: number;
  xid: number;
  prev: Lsn;
  info: number;
  rmgr: number;
  crc: number;
}

/** Reads the record header at `at`. The caller has made sure of 24 bytes. */
export function parseRecordHeader(bytes: Uint8Array, at: number): RecordHeader {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, RECORD_HEADER_SIZE);
  return {
    totalLength: view.getUint32(0, true),
    xid: view.getUint32(4, true),
    prev: view.getBigUint64(8, true) as Lsn,
    info: view.getUint8(16),
    rmgr: view.getUint8(17),
    crc: view.getUint32(20, true),
  };
}

/** A complete record whose CRC is right. */
export interface WalRecord extends RecordHeader {
  /** First byte of the record. */
  lsn: Lsn;
  /**
   * Where the next record can begin: the end, aligned to 8 bytes. For XLOG_SWITCH the end of the
   * segment. A page header may still lie in between.
   */
  endLsn: Lsn;
  /**
   * What follows the header (block references and data), `totalLength - 24` bytes, own memory.
   * Absent in a record longer than the decoder's `maxRecord`.
   */
  body?: Uint8Array;
}

/**
 * A byte for each xl_rmid and each upper half of an xl_info: 1 for a kind that is of interest, `NOTED`
 * for one of which only the transaction is, where the record is a plain end.
 */
export type RecordKinds = Uint8Array & { readonly length: 4096 };

export const NOTED = 2;

/** The place of a kind in it. */
export function kindOf(rmgr: number, info: number): number {
  return (rmgr << 4) | (info >> 4);
}

/**
 * The kinds that a function selects. To be made once, and kept: a thread has place for a few.
 * @param select must not ask for the lower half of xl_info
 */
export function recordKinds(select: (rmgr: number, info: number) => boolean): RecordKinds {
  const kinds = Uint8Array.from({ length: 4096 }, (_, at) =>
    select(at >> 4, (at & 15) << 4) ? 1 : 0,
  );
  return kinds as RecordKinds;
}

/** Receives the records of a walk piece by piece. The bytes are valid only during the call. */
export interface RecordVisitor {
  /** Where it is given: only records of these kinds are of interest. */
  readonly kinds?: RecordKinds;
  /**
   * A plausible header at `at`, its CRC perhaps not checked yet, and the halves of its LSN.
   * False: not interested in this record.
   */
  begin(header: Uint8Array, at: number, lsnHi: number, lsnLo: number): boolean;
  /** The next bytes of the body. */
  body(bytes: Uint8Array, start: number, end: number): void;
  /** The record is complete and good. */
  complete(endLsn: Lsn): void;
  /** The record that was begun is void: its rest was lost in a crash of the server. */
  abandon(): void;
}
