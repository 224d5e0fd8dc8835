import type { Lsn } from '../lsn.js';

/** Sizes of XLogPageHeaderData and XLogLongPageHeaderData in bytes (access/xlog_internal.h). */
export const SHORT_PAGE_HEADER = 24;
export const LONG_PAGE_HEADER = 40;
/** Where the fields of XLogPageHeaderData end; the four bytes behind only align what follows. */
export const HEADER_END = 20;

/** XLOG_BLCKSZ unless the server was built with another one. */
export const DEFAULT_BLOCK_SIZE = 8192;

/** xlp_info: the page begins with the rest of a record. */
export const XLP_FIRST_IS_CONTRECORD = 0x0001;
/** xlp_info: the long header, on the first page of a segment. */
export const XLP_LONG_HEADER = 0x0002;
/** xlp_info: full-page images on this page are not needed by a running backup. */
export const XLP_BKP_REMOVABLE = 0x0004;
/** xlp_info: the record that should go on here was lost in a crash and is void. */
export const XLP_FIRST_IS_OVERWRITE_CONTRECORD = 0x0008;
/** Every flag that servers up to 18 know (XLP_ALL_FLAGS). */
export const XLP_ALL_FLAGS = 0x000f;

/** XLOG_PAGE_MAGIC by server major version. */
const MAGIC_TO_MAJOR: ReadonlyMap<number, number> = new Map([
  [0xd10d, 14],
  [0xd110, 15],
  [0xd113, 16],
  [0xd116, 17],
  [0xd118, 18],
]);

/** Major version of the server that wrote pages with this magic; undefined for one unknown. */
export function majorOfMagic(magic: number): number | undefined {
  return MAGIC_TO_MAJOR.get(magic);
}

/** True if the magic is a known one with its bytes swapped: WAL of a big-endian server. */
export function isSwappedMagic(magic: number): boolean {
  return MAGIC_TO_MAJOR.has(((magic & 0xff) << 8) | (magic >>> 8));
}

/** True for what configure --with-wal-blocksize allows: a power of two from 1 to 64 kB. */
export function isValidBlockSize(bytes: number): boolean {
  return Number.isInteger(bytes) && bytes >= 1024 && bytes <= 65536 && (bytes & (bytes - 1)) === 0;
}

/**
 * Header of a WAL page, little-endian:
 * ```
 *  0  u16  xlp_magic
 *  2  u16  xlp_info      flags XLP_*
 *  4  u32  xlp_tli       timeline of the first record on the page
 *  8  u64  xlp_pageaddr  LSN of the page
 * 16  u32  xlp_rem_len   bytes of the continued record from here to its end
 * 20  u32  unused
 * 24  u64  xlp_sysid         (long header only, to the end)
 * 32  u32  xlp_seg_size
 * 36  u32  xlp_xlog_blcksz
 * ```
 */
export interface PageHeader {
  magic: number;
  info: number;
  timeline: number;
  address: Lsn;
  remaining: number;
  /** Present where the caller had 40 bytes and XLP_LONG_HEADER is set. */
  long?: { systemId: bigint; segmentSize: number; blockSize: number };
}

/** Reads a page header from 24 bytes, or 40 for the long one. It checks nothing. */
export function parsePageHeader(bytes: Uint8Array): PageHeader {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const header: PageHeader = {
    magic: view.getUint16(0, true),
    info: view.getUint16(2, true),
    timeline: view.getUint32(4, true),
    address: view.getBigUint64(8, true) as Lsn,
    remaining: view.getUint32(16, true),
  };
  if ((header.info & XLP_LONG_HEADER) !== 0 && bytes.byteLength >= LONG_PAGE_HEADER) {
    header.long = {
      systemId: view.getBigUint64(24, true),
      segmentSize: view.getUint32(32, true),
      blockSize: view.getUint32(36, true),
    };
  }
  return header;
}
