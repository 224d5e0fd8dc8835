/** Reversed Castagnoli polynomial, as port/pg_crc32c.h and SSE 4.2 use it. */
const POLYNOMIAL = 0x82f63b78;

/** 16 tables of 256: entry `k * 256 + b` is the CRC of byte `b` followed by `k` zero bytes. */
export const CRC_TABLES: Int32Array = makeTables();

const T = CRC_TABLES;

function makeTables(): Int32Array {
  const tables = new Int32Array(16 * 256);
  for (let b = 0; b < 256; b++) {
    let crc = b;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? POLYNOMIAL : 0);
    tables[b] = crc;
  }
  for (let i = 256; i < tables.length; i++) {
    const crc = tables[i - 256]!;
    tables[i] = (crc >>> 8) ^ tables[crc & 255]!;
  }
  return tables;
}

/** True where an Int32Array reads the bytes of WAL in the order in which it was written. */
export const LITTLE_ENDIAN_HOST = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1;

/** State of a CRC over nothing, for {@link updateCrc}. */
export const CRC_INIT = -1;

/** Sixteen bytes at a time (slicing-by-16); `c` is the state, four words follow. */
function fold16(c: number, x: number, y: number, z: number, u: number): number {
  const a = x ^ c;
  return (
    T[3840 + (a & 255)]! ^
    T[3584 + ((a >>> 8) & 255)]! ^
    T[3328 + ((a >>> 16) & 255)]! ^
    T[3072 + (a >>> 24)]! ^
    T[2816 + (y & 255)]! ^
    T[2560 + ((y >>> 8) & 255)]! ^
    T[2304 + ((y >>> 16) & 255)]! ^
    T[2048 + (y >>> 24)]! ^
    T[1792 + (z & 255)]! ^
    T[1536 + ((z >>> 8) & 255)]! ^
    T[1280 + ((z >>> 16) & 255)]! ^
    T[1024 + (z >>> 24)]! ^
    T[768 + (u & 255)]! ^
    T[512 + ((u >>> 8) & 255)]! ^
    T[256 + ((u >>> 16) & 255)]! ^
    T[u >>> 24]!
  );
}

function fold4(c: number, x: number): number {
  const a = x ^ c;
  return (
    T[768 + (a & 255)]! ^ T[512 + ((a >>> 8) & 255)]! ^ T[256 + ((a >>> 16) & 255)]! ^ T[a >>> 24]!
  );
}

/**
 * Takes `bytes[start, end)` into a CRC state. `words` must be a view of the same memory from
 * the same first byte: whole words are read through it.
 */
export function updateCrc(
  state: number,
  bytes: Uint8Array,
  words: Int32Array,
  start: number,
  end: number,
): number {
  let c = state;
  let i = start;
  while (i < end && (i & 3) !== 0) c = T[(c ^ bytes[i++]!) & 255]! ^ (c >>> 8);
  let w = i >> 2;
  const wordEnd = end >> 2;
  for (; w + 4 <= wordEnd; w += 4) {
    c = fold16(c, words[w]!, words[w + 1]!, words[w + 2]!, words[w + 3]!);
  }
  for (; w < wordEnd; w++) c = fold4(c, words[w]!);
  if (w << 2 > i) i = w << 2;
  while (i < end) c = T[(c ^ bytes[i++]!) & 255]! ^ (c >>> 8);
  return c;
}

/**
 * CRC of a WAL record that lies in one piece at `at` (a multiple of 4), as xl_crc holds it, as a
 * signed word. Order of the bytes: the body behind the 24-byte header, then the first 20 bytes
 * of the header (access/xloginsert.c).
 */
export function recordCrc(
  bytes: Uint8Array,
  words: Int32Array,
  at: number,
  length: number,
): number {
  const end = at + length;
  const wordEnd = end >> 2;
  let w = (at >> 2) + 6;
  let c = CRC_INIT;
  for (; w + 4 <= wordEnd; w += 4) {
    c = fold16(c, words[w]!, words[w + 1]!, words[w + 2]!, words[w + 3]!);
  }
  for (; w < wordEnd; w++) c = fold4(c, words[w]!);
  for (let i = w << 2; i < end; i++) c = T[(c ^ bytes[i]!) & 255]! ^ (c >>> 8);
  return finishRecordCrc(words, at >> 2, c);
}

/** The same for a body that was taken in pieces: its state, and the header from word `w` on. */
export function finishRecordCrc(words: Int32Array, w: number, bodyState: number): number {
  const c = fold16(bodyState, words[w]!, words[w + 1]!, words[w + 2]!, words[w + 3]!);
  return ~fold4(c, words[w + 4]!);
}

/**
 * CRC-32C of `bytes[start, end)` as an unsigned number. `seed` is the result over the bytes
 * before, so that a CRC can be taken in pieces.
 */
export function crc32c(bytes: Uint8Array, start = 0, end = bytes.length, seed = 0): number {
  let c = ~seed;
  let i = start;
  const { buffer, byteOffset, length } = bytes;
  // A view of words pays for itself from some dozens of bytes on.
  if (end - start >= 64 && (byteOffset & 3) === 0) {
    const words = new Int32Array(buffer, byteOffset, length >> 2);
    const wordsEnd = end & ~3;
    c = updateCrc(c, bytes, words, start, wordsEnd);
    i = wordsEnd;
  }
  for (; i < end; i++) c = T[(c ^ bytes[i]!) & 255]! ^ (c >>> 8);
  return ~c >>> 0;
}
