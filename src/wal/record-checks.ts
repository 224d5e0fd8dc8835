import { formatLsn, type Lsn } from '../lsn.js';
import { type Address, joinLsn } from './address.js';
import { finishRecordCrc } from './crc32c.js';
import type { Failure } from './page-checker.js';
import {
  MAX_RECORD_LENGTH,
  parseRecordHeader,
  RECORD_HEADER_SIZE,
  RM_XLOG,
  RMGR_INFO_MASK,
  XLOG_OVERWRITE_CONTRECORD,
} from './record.js';

/** Bytes of an overwrite record's body that tell which record it replaces. */
export const OVERWRITE_BODY = 10;

/** xl_tot_len; `have` bytes (8 or more) of `header`. */
export function checkLength(header: Uint8Array, have: number): Failure | undefined {
  const length = new DataView(header.buffer, header.byteOffset).getUint32(0, true);
  if (length < RECORD_HEADER_SIZE || length > MAX_RECORD_LENGTH) {
    const kind = header.subarray(0, have).every((b) => b === 0) ? 'zeros' : 'record-length';
    const message = kind === 'zeros' ? 'no WAL record but zeros' : 'invalid WAL record length';
    const expected = `${RECORD_HEADER_SIZE} to ${MAX_RECORD_LENGTH}`;
    return { kind, message, expected, actual: String(length) };
  }
  return undefined;
}

/** xl_prev against the record before, or where that is unknown against the record itself. */
export function checkPrev(
  header: Uint8Array,
  record: Address,
  prev: Address | undefined,
): Failure | undefined {
  const actual = parseRecordHeader(header, 0).prev;
  const lsn = joinLsn(record.hi, record.lo);
  const expected = prev && joinLsn(prev.hi, prev.lo);
  if (expected === undefined ? actual < lsn : actual === expected) return undefined;
  return {
    kind: 'record-prev',
    message: 'WAL record does not follow the one before it',
    expected: expected === undefined ? `below ${formatLsn(lsn)}` : formatLsn(expected),
    actual: formatLsn(actual),
  };
}

/** True for a header, as words, that checkLength and checkPrev accept; false proves nothing. */
export function isPlainHeader(words: Int32Array, prev: Address | undefined): boolean {
  const length = words[0]!;
  return (
    prev !== undefined &&
    length >= RECORD_HEADER_SIZE &&
    length <= MAX_RECORD_LENGTH &&
    words[4]! >>> 16 === 0 &&
    words[2] === (prev.lo | 0) &&
    words[3] === (prev.hi | 0)
  );
}

const hex8 = (n: number) => `0x${(n >>> 0).toString(16).toUpperCase().padStart(8, '0')}`;

/** xl_crc of the header in `words` against the state of a CRC over the body. */
export function checkCrc(words: Int32Array, bodyState: number): Failure | undefined {
  const actual = finishRecordCrc(words, 0, bodyState);
  const expected = words[5]!;
  if (actual === expected) return undefined;
  return {
    kind: 'record-crc',
    message: 'WAL record has a wrong checksum',
    expected: hex8(expected),
    actual: hex8(actual),
  };
}

/**
 * The record behind a lost one must be XLOG_OVERWRITE_CONTRECORD, and name it
 * (xl_overwrite_contrecord, access/xlog_internal.h):
 * ```
 *  0  u8   255  short data header
 *  1  u8   16   data length
 *  2  u64  overwritten_lsn
 * 10  u64  overwrite_time
 * ```
 */
export function checkOverwrite(
  header: Uint8Array,
  body: Uint8Array,
  lost: Lsn | undefined,
): Failure | undefined {
  const { rmgr, info } = parseRecordHeader(header, 0);
  const message = 'no record that declares the lost one void';
  const kind = 'overwrite';
  if (rmgr !== RM_XLOG || (info & RMGR_INFO_MASK) !== XLOG_OVERWRITE_CONTRECORD) {
    const expected = `resource manager ${RM_XLOG}, info ${XLOG_OVERWRITE_CONTRECORD}`;
    return { kind, message, expected, actual: `resource manager ${rmgr}, info ${info}` };
  }
  const lsn = new DataView(body.buffer, body.byteOffset).getBigUint64(2, true);
  if (lost === undefined || lsn === lost) return undefined;
  return { kind, message, expected: formatLsn(lost), actual: formatLsn(lsn) };
}
