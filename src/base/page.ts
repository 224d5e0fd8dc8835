/**
 * Pages of relations, as far as combining backups has to look into them (storage/bufpage.h,
 * little-endian, 14 to 18):
 *
 * ```
 * 0 u64 LSN   8 u16 checksum   10 u16 flags   12 u16 lower   14 u16 upper   16 u16 special
 * 18 u16 size and version   20 u32 prune xid   24 line pointers, u32 each
 * ```
 */
const CHECKSUM = 8;
const FLAGS = 10;
const LOWER = 12;
const UPPER = 14;
export const PAGE_HEADER = 24;

const PD_ALL_VISIBLE = 0x0004;

function viewOf(page: Uint8Array): DataView {
  return new DataView(page.buffer, page.byteOffset, page.length);
}

/** Nobody has put anything into it yet. */
export function isNewPage(page: Uint8Array): boolean {
  return viewOf(page).getUint16(UPPER, true) === 0;
}

/** What a page of a table says of all its rows. */
export function heapPageState(page: Uint8Array): { visible: boolean; frozen: boolean } {
  const view = viewOf(page);
  if (isNewPage(page) || (view.getUint16(FLAGS, true) & PD_ALL_VISIBLE) === 0) {
    return { visible: false, frozen: false };
  }
  return { visible: true, frozen: isFrozen(view) };
}

const LP_NORMAL = 1;
const FIRST_NORMAL_XID = 3;
const XMIN_FROZEN = 0x0300;
const XMAX_IS_MULTI = 0x1000;
const MOVED = 0xc000;

/** As heap_tuple_needs_eventual_freeze asks it, of all rows: no transaction or lock is left in them. */
function isFrozen(view: DataView): boolean {
  const end = Math.min(view.getUint16(LOWER, true), view.byteLength);
  for (let at = PAGE_HEADER; at + 4 <= end; at += 4) {
    const pointer = view.getUint32(at, true);
    if (((pointer >>> 15) & 3) !== LP_NORMAL) continue;
    const row = pointer & 0x7fff;
    // It is damaged, whatever it says.
    if (row + PAGE_HEADER - 1 > view.byteLength) return false;
    const infomask = view.getUint16(row + 20, true);
    if ((infomask & MOVED) !== 0) return false;
    const xmin = view.getUint32(row, true);
    if ((infomask & XMIN_FROZEN) !== XMIN_FROZEN && xmin >= FIRST_NORMAL_XID) return false;
    const xmax = view.getUint32(row + 4, true);
    if ((infomask & XMAX_IS_MULTI) !== 0 ? xmax !== 0 : xmax >= FIRST_NORMAL_XID) return false;
  }
  return true;
}

const SUMS = 32;
const PRIME = 16777619;
/** The states that the 32 sums begin with. */
const BASES = Int32Array.of(
  ...[0x5b1f36e9, 0xb8525960, 0x02ab50aa, 0x1de66d2a, 0x79ff467a, 0x9bb9f8a3, 0x217e7cd2],
  ...[0x83e13d2c, 0xf8d4474f, 0xe39eb970, 0x42c6ae16, 0x993216fa, 0x7b093b5d, 0x98daff3c],
  ...[0xf718902a, 0x0b1c9cdb, 0xe58f764b, 0x187636bc, 0x5d7b3bb1, 0xe73de7de, 0x92bec979],
  ...[0xcca6c0b2, 0x304a0979, 0x85aa43d4, 0x783125bb, 0x6ca8eaa2, 0xe407eac6, 0x4b5cfc3e],
  ...[0x9fbf8c76, 0x15ca20be, 0xf2ca9fd3, 0x959bd756],
);

/**
 * The checksum of a page of a cluster with data checksums (storage/checksum_impl.h): 32 interleaved
 * FNV-1a sums over its words, folded, and the number of the block.
 * @param block within the fork, over all its files
 */
export function pageChecksum(page: Uint8Array, block: number): number {
  const words = wordsOf(page);
  let folded = 0;
  // Four columns at a time: each waits for its own multiplication only.
  for (let column = 0; column < SUMS; column += 4) {
    let a = BASES[column] as number;
    let b = BASES[column + 1] as number;
    let c = BASES[column + 2] as number;
    let d = BASES[column + 3] as number;
    for (let at = column; at < words.length; at += SUMS) {
      a ^= words[at] as number;
      b ^= words[at + 1] as number;
      // The checksum itself counts as zero.
      c ^= at === 0 ? (words[2] as number) & 0xffff0000 : (words[at + 2] as number);
      d ^= words[at + 3] as number;
      a = Math.imul(a, PRIME) ^ (a >>> 17);
      b = Math.imul(b, PRIME) ^ (b >>> 17);
      c = Math.imul(c, PRIME) ^ (c >>> 17);
      d = Math.imul(d, PRIME) ^ (d >>> 17);
    }
    for (let zeros = 0; zeros < 2; zeros++) {
      a = Math.imul(a, PRIME) ^ (a >>> 17);
      b = Math.imul(b, PRIME) ^ (b >>> 17);
      c = Math.imul(c, PRIME) ^ (c >>> 17);
      d = Math.imul(d, PRIME) ^ (d >>> 17);
    }
    folded ^= a ^ b ^ c ^ d;
  }
  return (((folded ^ block) >>> 0) % 65535) + 1;
}

/** The words of a page, which need not be where such can be read. Little-endian as all it is made for. */
function wordsOf(page: Uint8Array): Int32Array {
  if (page.byteOffset % 4 === 0) {
    return new Int32Array(page.buffer, page.byteOffset, page.length / 4);
  }
  return new Int32Array(Uint8Array.from(page).buffer);
}

/** Writes it into the page. */
export function setPageChecksum(page: Uint8Array, block: number): void {
  viewOf(page).setUint16(CHECKSUM, pageChecksum(page, block), true);
}

/** Whether a page has the checksum that it says; a new one has none. */
export function hasPageChecksum(page: Uint8Array, block: number): boolean {
  if (isNewPage(page)) return true;
  return viewOf(page).getUint16(CHECKSUM, true) === pageChecksum(page, block);
}
