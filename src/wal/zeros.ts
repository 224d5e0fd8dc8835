/**
 * Index of the first byte in `bytes[from, to)` that is not zero, `to` if there is none. `words`
 * views the same memory from the same first byte.
 */
export function firstNonZero(
  bytes: Uint8Array,
  words: Int32Array,
  from: number,
  to: number,
): number {
  let i = from;
  while (i < to && (i & 3) !== 0) {
    if (bytes[i] !== 0) return i;
    i++;
  }
  let w = i >> 2;
  const wordEnd = to >> 2;
  while (w < wordEnd && words[w] === 0) w++;
  if (w << 2 > i) i = w << 2;
  while (i < to && bytes[i] === 0) i++;
  return i;
}

/** Bytes up to the last one that is not zero. */
export function lengthWithoutZeros(bytes: Uint8Array): number {
  let end = bytes.length;
  while (end > 0 && bytes[end - 1] === 0) end -= 1;
  return end;
}
