import type { Lsn } from '../lsn.js';
import { isValidSegmentSize } from './file-name.js';

/** Bytes of a long page header (access/xlog_internal.h, SizeOfXLogLongPHD). */
export const LONG_HEADER_SIZE = 40;

/** XLP_LONG_HEADER: this page begins a segment and says which cluster it is of. */
const LONG_HEADER_FLAG = 0x0002;

/** What the first page of a segment says about its origin. */
export interface LongHeader {
  /** xlp_sysid: the cluster's system identifier. */
  systemId: bigint;
  /** xlp_tli: timeline of the first record on the page, an ancestor's after a promotion. */
  timeline: number;
  /** xlp_pageaddr: LSN of the page, and so of the segment. */
  pageAddress: Lsn;
  /** xlp_seg_size, bytes. */
  segmentSize: number;
  /** xlp_xlog_blcksz, bytes. */
  blockSize: number;
}

/**
 * Reads XLogLongPageHeaderData, written by a little-endian server:
 * magic u16, info u16, tli u32, pageaddr u64, rem_len u32, padding u32, sysid u64, seg_size u32,
 * xlog_blcksz u32. Undefined unless every field is plausible: zeros, a torn page and foreign bytes
 * identify nobody.
 */
export function parseLongHeader(page: Uint8Array): LongHeader | undefined {
  if (page.length < LONG_HEADER_SIZE) return undefined;
  const view = new DataView(page.buffer, page.byteOffset, LONG_HEADER_SIZE);
  const magic = view.getUint16(0, true);
  const info = view.getUint16(2, true);
  const header: LongHeader = {
    systemId: view.getBigUint64(24, true),
    timeline: view.getUint32(4, true),
    pageAddress: view.getBigUint64(8, true) as Lsn,
    segmentSize: view.getUint32(32, true),
    blockSize: view.getUint32(36, true),
  };
  const { blockSize, segmentSize } = header;
  const plausible =
    // XLOG_PAGE_MAGIC grows with every major: 0xD061 in 8.4, 0xD118 in 18.
    magic >> 12 === 0xd &&
    (info & LONG_HEADER_FLAG) !== 0 &&
    header.systemId !== 0n &&
    header.timeline !== 0 &&
    isValidSegmentSize(segmentSize) &&
    header.pageAddress % BigInt(segmentSize) === 0n &&
    blockSize >= 1024 &&
    blockSize <= 65536 &&
    (blockSize & (blockSize - 1)) === 0;
  return plausible ? header : undefined;
}
