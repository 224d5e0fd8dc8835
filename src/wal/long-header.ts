import type { Lsn } from '../lsn.js';
import { isValidSegmentSize } from './file-name.js';
import { isValidBlockSize, LONG_PAGE_HEADER, parsePageHeader } from './page.js';

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
 * The long header at the begin of a segment. Undefined unless every field is plausible: zeros, a
 * torn page and foreign bytes identify nobody.
 */
export function parseLongHeader(page: Uint8Array): LongHeader | undefined {
  if (page.length < LONG_PAGE_HEADER) return undefined;
  const { magic, timeline, address: pageAddress, long } = parsePageHeader(page);
  if (!long) return undefined;
  const { systemId, segmentSize, blockSize } = long;
  const plausible =
    // XLOG_PAGE_MAGIC grows with every major: 0xD061 in 8.4, 0xD118 in 18.
    magic >> 12 === 0xd &&
    systemId !== 0n &&
    timeline !== 0 &&
    isValidSegmentSize(segmentSize) &&
    pageAddress % BigInt(segmentSize) === 0n &&
    isValidBlockSize(blockSize);
  return plausible ? { systemId, timeline, pageAddress, segmentSize, blockSize } : undefined;
}
