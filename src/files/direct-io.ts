import { constants } from 'node:fs';
import type { FileSystem } from './file-system.js';

/**
 * Writing past the page cache (O_DIRECT, open(2)): large amounts of WAL would only push other
 * pages out of it, and copying them there costs several times the CPU of the write itself.
 */

/** Memory, file offsets and lengths are multiples of this; no file system here asks for more. */
export const DIRECT_ALIGN = 4096;

const OPEN_DIRECT = constants.O_WRONLY | constants.O_NOFOLLOW | (constants.O_DIRECT ?? 0);
const WASM_PAGE = 65_536;

/** Memory that begins at a page boundary. */
export interface AlignedMemory {
  bytes: Uint8Array;
  /** It may be given to somebody else. */
  release(): void;
}

/** What is used of the global WebAssembly, which the types of Node.js leave to those of browsers. */
interface WebAssemblyApi {
  Memory: new (pages: { initial: number; maximum: number }) => { buffer: ArrayBuffer };
}

/**
 * The aligned memory of the process. Node has no aligned allocation; the memory of a WebAssembly
 * instance is mapped by pages. One of a size is kept for the next taker: see SpareBuffers.
 */
class AlignedMemories {
  /** All that were made. */
  private readonly aligned = new WeakSet<ArrayBufferLike>();
  /** Released ones, by their size. */
  private readonly spares = new Map<number, Uint8Array>();

  take(size: number): AlignedMemory {
    const pages = Math.ceil(size / WASM_PAGE);
    const bytes = this.spares.get(pages) ?? this.make(pages);
    this.spares.delete(pages);
    return { bytes, release: () => void this.spares.set(pages, bytes) };
  }

  has({ buffer }: Uint8Array): boolean {
    return this.aligned.has(buffer);
  }

  private make(pages: number): Uint8Array {
    const { Memory } = (globalThis as unknown as { WebAssembly: WebAssemblyApi }).WebAssembly;
    const { buffer } = new Memory({ initial: pages, maximum: pages });
    this.aligned.add(buffer);
    return new Uint8Array(buffer);
  }
}

const MEMORIES = new AlignedMemories();

/**
 * At least `size` zeroed or formerly used bytes.
 * @throws RangeError if there is no memory
 */
export function takeAlignedMemory(size: number): AlignedMemory {
  return MEMORIES.take(size);
}

/**
 * Another descriptor of a file for direct I/O, with further `flags`; undefined where the file
 * system has none.
 */
export function openDirect(path: string, fs: FileSystem, flags = 0): number | undefined {
  if (constants.O_DIRECT === undefined) return undefined;
  try {
    return fs.openSync(path, OPEN_DIRECT | flags, 0);
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code === 'EINVAL') return undefined;
    throw e;
  }
}

/** What goes into one call, and how. */
export interface DirectPiece {
  direct: boolean;
  buffers: readonly Uint8Array[];
}

/**
 * The first part of `buffers`, of which the first byte goes to `position`, that can be written in
 * one way: directly as far as memory and place agree, otherwise up to where they may.
 */
export function firstPiece(buffers: readonly Uint8Array[], position: number): DirectPiece {
  const first = buffers[0] as Uint8Array;
  const skew = position % DIRECT_ALIGN;
  if (!MEMORIES.has(first) || first.byteOffset % DIRECT_ALIGN !== skew) {
    return { direct: false, buffers };
  }
  if (skew > 0) return { direct: false, buffers: [first.subarray(0, DIRECT_ALIGN - skew)] };
  const whole: Uint8Array[] = [];
  for (const b of buffers) {
    if (!MEMORIES.has(b) || b.byteOffset % DIRECT_ALIGN !== 0) break;
    const length = b.length - (b.length % DIRECT_ALIGN);
    if (length > 0) whole.push(length === b.length ? b : b.subarray(0, length));
    if (length < b.length) break;
  }
  return whole.length > 0 ? { direct: true, buffers: whole } : { direct: false, buffers: [first] };
}
