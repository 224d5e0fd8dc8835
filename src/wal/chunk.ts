/** A piece of WAL in memory that can be read by words: index and LSN agree modulo 4. */
export interface Chunk {
  bytes: Uint8Array;
  /** The same memory from the same first byte. */
  words: Int32Array;
  from: number;
  to: number;
}

/** A copy of `bytes`, whose first byte has the LSN `lsn`. */
export function copyChunk(bytes: Uint8Array, lsn: bigint): Chunk {
  const from = Number(lsn & 3n);
  const copy = new Uint8Array((from + bytes.length + 3) & ~3);
  copy.set(bytes, from);
  return { bytes: copy, words: new Int32Array(copy.buffer), from, to: from + bytes.length };
}

/** Below this, copying costs less than making two views. */
const SMALL = 2048;

/** Small enough to stay in the CPU's second-level cache. */
const SCRATCH = 64 * 1024;

/** Gives byte ranges as chunks without allocating a copy of them. */
export class ChunkReader {
  readonly #bytes = new Uint8Array(SCRATCH);
  readonly #words = new Int32Array(this.#bytes.buffer);

  /**
   * Calls `walk` for `source[start, end)` in one or more parts; `lsn` is that of `source[start]`.
   * In place where the memory is aligned as its LSN is, otherwise by way of a scratch buffer.
   */
  read(
    source: Uint8Array,
    start: number,
    end: number,
    lsn: bigint,
    walk: (bytes: Uint8Array, words: Int32Array, from: number, to: number) => void,
  ): void {
    let from = Number(lsn & 3n);
    const offset = source.byteOffset + start;
    if (end - start >= SMALL && (offset & 3) === from) {
      const length = from + end - start;
      const bytes = new Uint8Array(source.buffer, offset - from, length);
      walk(bytes, new Int32Array(source.buffer, offset - from, length >> 2), from, length);
      return;
    }
    for (let at = start; at < end; ) {
      const n = Math.min(end - at, SCRATCH - from);
      this.#bytes.set(source.subarray(at, at + n), from);
      walk(this.#bytes, this.#words, from, from + n);
      at += n;
      from = (from + n) & 3;
    }
  }
}
