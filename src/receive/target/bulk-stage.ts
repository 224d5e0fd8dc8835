import { type AlignedMemory, DIRECT_ALIGN, takeAlignedMemory } from '../../files/direct-io.js';

/** Most bytes of a block: smaller ones cost throughput with direct I/O, larger ones only memory. */
const MAX_BLOCK = 1024 * 1024;
const BLOCKS = 6;

/** Bytes that were staged one behind the other, and where they lie in a block of the stage. */
export interface StagedBlock {
  bytes: Uint8Array;
  /** The whole block, to give it back. */
  block: Uint8Array;
}

/**
 * A few large blocks in which WAL is collected while it comes in bulk. They lie in memory as their
 * bytes will lie in the file, modulo `DIRECT_ALIGN`, so that most can be written past the page cache.
 */
export class BulkStage {
  /** So many bytes behind the server's end it is worth using. */
  readonly worthwhile: number;
  private readonly blockSize: number;
  private readonly memory: AlignedMemory;
  private readonly free: Uint8Array[];
  private block: Uint8Array | undefined;
  private begin = 0;
  private end = 0;

  /** @throws RangeError if there is no memory */
  constructor(segmentSize: number) {
    const blockSize = Math.min(MAX_BLOCK, segmentSize / 8);
    this.blockSize = blockSize;
    this.worthwhile = BLOCKS * blockSize;
    this.memory = takeAlignedMemory(BLOCKS * blockSize);
    this.free = Array.from({ length: BLOCKS }, (_, i) =>
      this.memory.bytes.subarray(i * blockSize, (i + 1) * blockSize),
    );
  }

  /** True if no block is left but the one being filled: time to stop reading. */
  get isFull(): boolean {
    return this.free.length === 0;
  }

  /** True if at least half of the blocks are free again. */
  get hasRoom(): boolean {
    return this.free.length * 2 >= BLOCKS;
  }

  get isEmpty(): boolean {
    return this.end === this.begin;
  }

  /**
   * Copies `chunk`, whose first byte goes to `position` of some file, and calls `onFull` for each
   * block that it completes. Blocks come on top where none is free: the last read before a pause.
   */
  add(chunk: Uint8Array, position: number, onFull: (full: StagedBlock) => void): void {
    for (let taken = 0; taken < chunk.length; ) {
      this.block ??= this.open((position + taken) % DIRECT_ALIGN);
      const n = Math.min(chunk.length - taken, this.block.length - this.end);
      this.block.set(
        taken === 0 && n === chunk.length ? chunk : chunk.subarray(taken, taken + n),
        this.end,
      );
      this.end += n;
      taken += n;
      if (this.end === this.block.length) onFull(this.take() as StagedBlock);
    }
  }

  /** What was collected since the last full block. */
  take(): StagedBlock | undefined {
    const { block, begin, end } = this;
    if (!block || begin === end) return undefined;
    this.block = undefined;
    this.begin = this.end = 0;
    return { bytes: block.subarray(begin, end), block };
  }

  /** The block was written. */
  giveBack({ block }: StagedBlock): void {
    if (block.buffer === this.memory.bytes.buffer) this.free.push(block);
  }

  /** Gives the memory to the next stage. Nothing may be using a block any more. */
  close(): void {
    this.memory.release();
  }

  private open(offset: number): Uint8Array {
    this.begin = this.end = offset;
    return this.free.pop() ?? new Uint8Array(this.blockSize);
  }
}

/** None where there is no memory for it: WAL is written as it comes then. */
export function makeBulkStage(segmentSize: number): BulkStage | undefined {
  try {
    return new BulkStage(segmentSize);
  } catch {
    return undefined;
  }
}
