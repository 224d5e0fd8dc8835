import {
  BUFFER_SIZE,
  BUFFER_START,
  BUFFERS,
  KERNEL,
  loadKernel,
  SCRATCH_SIZE,
  SCRATCH_START,
} from './kernel.js';

/** A piece of WAL in memory that can be read by words: index and LSN agree modulo 4. */
export interface Chunk {
  bytes: Uint8Array;
  /** The same memory from the same first byte. */
  words: Int32Array;
  from: number;
  to: number;
}

/** A copy of `bytes`, whose first byte has the LSN `lsn`. @param spare to be used again if it has room */
export function copyChunk(bytes: Uint8Array, lsn: bigint, spare?: Chunk): Chunk {
  const from = Number(lsn & 3n);
  const to = from + bytes.length;
  const used = spare && spare.bytes.length >= to ? spare : undefined;
  const copy = used?.bytes ?? new Uint8Array((to + 3) & ~3);
  copy.set(bytes, from);
  return { bytes: copy, words: used?.words ?? new Int32Array(copy.buffer), from, to };
}

/** Below this, copying costs less than making two views. */
const SMALL = 2048;

type Walk = (bytes: Uint8Array, words: Int32Array, from: number, to: number) => void;

/** A copy that stays in the CPU's second-level cache while it is checked. */
let scratch: Omit<Chunk, 'to'> | undefined;

function makeScratch(): Omit<Chunk, 'to'> {
  const kernel = loadKernel();
  if (kernel) return { bytes: kernel.bytes, words: kernel.words, from: SCRATCH_START };
  const bytes = new Uint8Array(SCRATCH_SIZE);
  return { bytes, words: new Int32Array(bytes.buffer), from: 0 };
}

let buffers: readonly Uint8Array[] | undefined;

/**
 * Buffers to read WAL into that is checked where it lies: without a copy, and in the memory of the
 * kernel where there is one. The thread's only ones, of a multiple of the page size.
 */
export function walBuffers(): readonly Uint8Array[] {
  buffers ??= Array.from({ length: BUFFERS }, (_, i) => {
    const start = BUFFER_START + i * BUFFER_SIZE;
    const size = BUFFER_SIZE;
    return loadKernel()?.bytes.subarray(start, start + size) ?? new Uint8Array(size);
  });
  return buffers;
}

/**
 * Calls `walk` for `source[start, end)` in one or more parts, without allocating copies; the
 * LSN of `source[start]` is `align` modulo 4. In place where the memory is the kernel's, or without kernel where it
 * is aligned as its LSN is; otherwise by way of a scratch buffer.
 */
export function readChunk(
  source: Uint8Array,
  start: number,
  end: number,
  align: number,
  walk: Walk,
): void {
  scratch ??= makeScratch();
  const offset = source.byteOffset + start;
  if ((offset & 3) === align) {
    if (source.buffer === KERNEL?.bytes.buffer) {
      walk(KERNEL.bytes, KERNEL.words, offset, offset + end - start);
      return;
    }
    if (!KERNEL && end - start >= SMALL) {
      const length = align + end - start;
      const bytes = new Uint8Array(source.buffer, offset - align, length);
      walk(bytes, new Int32Array(source.buffer, offset - align, length >> 2), align, length);
      return;
    }
  }
  for (let at = start, skew = align; at < end; ) {
    const from = scratch.from + skew;
    const n = Math.min(end - at, SCRATCH_SIZE - skew);
    // A view costs more than copying a commit does.
    scratch.bytes.set(n === source.length ? source : source.subarray(at, at + n), from);
    walk(scratch.bytes, scratch.words, from, from + n);
    at += n;
    skew = (skew + n) & 3;
  }
}
