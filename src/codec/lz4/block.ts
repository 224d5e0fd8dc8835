/**
 * LZ4 block format (lz4_Block_format.md): sequences of a token (4 bits literal length, 4 bits match
 * length - 4), literals, a 16-bit offset back into the output, and lengths continued in bytes of
 * 255. Our own because lz4js 0.2.0 breaks the end-of-block rules, which makes liblz4 refuse a full
 * block, and checks no bounds when decoding.
 */

export const MIN_MATCH = 4;
/** The last five bytes are always literals. */
export const LAST_LITERALS = 5;
/** The last match starts at least twelve bytes before the end of the block. */
export const MATCH_LIMIT = 12;
export const MAX_OFFSET = 65535;
/** So that the table fits into the CPU's first cache; more make WAL a thirtieth smaller, and slower. */
export const HASH_BITS = 12;
export const HASH_FACTOR = -1640531535;
/** Steps grow while nothing matches: data that does not compress is passed over quickly. */
export const FIRST_MISS = 64;
export const MISS_SHIFT = 6;

/** Entries of the table that `compressBlock` needs; the caller keeps it between blocks. */
export const HASH_TABLE_SIZE = 1 << HASH_BITS;

/** Most bytes that a block of `size` bytes can take compressed (LZ4_compressBound). */
export function compressBound(size: number): number {
  return size + Math.floor(size / 255) + 16;
}

/**
 * Compresses `src` into `dst` (of `compressBound` bytes). `table` is overwritten. Returns the length
 * of the output.
 */
export function compressBlock(src: Uint8Array, dst: Uint8Array, table: Int32Array): number {
  const matchLimit = src.length - MATCH_LIMIT;
  const matchEnd = src.length - LAST_LITERALS;
  const view = new DataView(src.buffer, src.byteOffset, src.length);
  table.fill(-1);
  let anchor = 0;
  let at = 0;
  let out = 0;
  let misses = FIRST_MISS;
  while (at <= matchLimit) {
    const word = view.getInt32(at, true);
    const slot = Math.imul(word, HASH_FACTOR) >>> (32 - HASH_BITS);
    let from = table[slot] as number;
    table[slot] = at;
    if (from < 0 || at - from > MAX_OFFSET || view.getInt32(from, true) !== word) {
      at += misses++ >> MISS_SHIFT;
      continue;
    }
    misses = FIRST_MISS;
    while (at > anchor && from > 0 && src[at - 1] === src[from - 1]) {
      at--;
      from--;
    }
    let end = at + MIN_MATCH;
    const distance = at - from;
    while (
      end + 4 <= matchEnd &&
      view.getInt32(end, true) === view.getInt32(end - distance, true)
    ) {
      end += 4;
    }
    while (end < matchEnd && src[end] === src[end - distance]) end++;
    out = putSequence(src, anchor, at, dst, out, end - at - MIN_MATCH);
    dst[out++] = distance & 0xff;
    dst[out++] = distance >> 8;
    if (end - at - MIN_MATCH >= 15) out = putLength(dst, out, end - at - MIN_MATCH - 15);
    at = end;
    anchor = end;
  }
  return putSequence(src, anchor, src.length, dst, out, 0);
}

/** Token and literals. */
function putSequence(
  src: Uint8Array,
  from: number,
  to: number,
  dst: Uint8Array,
  out: number,
  matchCode: number,
): number {
  const literals = to - from;
  dst[out++] = (Math.min(literals, 15) << 4) | Math.min(matchCode, 15);
  let at = literals >= 15 ? putLength(dst, out, literals - 15) : out;
  if (literals > 32) {
    dst.set(src.subarray(from, to), at);
    return at + literals;
  }
  for (let i = from; i < to; i++) dst[at++] = src[i] as number;
  return at;
}

function putLength(dst: Uint8Array, out: number, length: number): number {
  for (; length >= 255; length -= 255) dst[out++] = 255;
  dst[out++] = length;
  return out;
}

/**
 * Decompresses one block to `dst[start…]`; matches may reach back below `start` into what earlier
 * linked blocks left there. Returns the end of the output. A damaged block never writes beyond
 * `dst`. @throws RangeError if the block is damaged
 */
export function decompressBlock(src: Uint8Array, dst: Uint8Array, start: number): number {
  let at = 0;
  let out = start;
  while (at < src.length) {
    const token = src[at++] as number;
    let literals = token >> 4;
    if (literals === 15) {
      let more: number;
      do {
        more = src[at++] ?? malformed('length');
        literals += more;
      } while (more === 255);
    }
    if (literals > src.length - at || literals > dst.length - out) {
      malformed('literals');
    }
    if (literals > 32) dst.set(src.subarray(at, at + literals), out);
    else for (let i = 0; i < literals; i++) dst[out + i] = src[at + i] as number;
    at += literals;
    out += literals;
    if (at === src.length) return out;
    if (at + 2 > src.length) malformed('cut');
    const distance = (src[at] as number) | ((src[at + 1] as number) << 8);
    at += 2;
    let length = token & 15;
    if (length === 15) {
      let more: number;
      do {
        more = src[at++] ?? malformed('length');
        length += more;
      } while (more === 255);
    }
    length += MIN_MATCH;
    if (distance === 0 || distance > out) malformed('offset');
    if (length > dst.length - out) malformed('match');
    if (distance === 1) dst.fill(dst[out - 1] as number, out, out + length);
    else if (distance >= length && length > 32)
      dst.copyWithin(out, out - distance, out - distance + length);
    else for (let i = out; i < out + length; i++) dst[i] = dst[i - distance] as number;
    out += length;
  }
  return malformed('end');
}

const FAULTS = {
  length: 'it ends within a length',
  literals: 'literals beyond its end',
  cut: 'it ends within an offset',
  offset: 'an offset before its beginning',
  match: 'a match beyond its end',
  end: 'it ends without literals',
};

/** What can be wrong with a block. */
export type BlockFault = keyof typeof FAULTS;
export const BLOCK_FAULTS = Object.keys(FAULTS) as readonly BlockFault[];

/** @throws RangeError */
export function malformed(fault: BlockFault): never {
  throw new RangeError(`damaged LZ4 block: ${FAULTS[fault]}`);
}
