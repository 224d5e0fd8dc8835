import { constants } from 'node:fs';
import {
  type AlignedMemory,
  DIRECT_ALIGN,
  openDirect,
  takeAlignedMemory,
} from '../../files/direct-io.js';
import type { FileSystem } from '../../files/file-system.js';
import type { OpenSegment } from './open-segment.js';

/** Bytes of the memory: what one call can write, with the page that it begins in. */
const CAPACITY = 64 * 1024;

/**
 * Writes commits to the end of a segment past the page cache, durably with the one call
 * (O_DIRECT | O_DSYNC, open(2)). Next to write and fdatasync that spares a system call, and the
 * kernel the search for dirty pages.
 *
 * The page that holds the end is written again with each commit, as the page cache would do it:
 * with the same bytes as before, and then the new ones. What is behind them must be zeros.
 */
export class SyncedTail {
  /** False once it was refused: there is no use in trying again. */
  isPossible: boolean = constants.O_DSYNC !== undefined;
  private readonly fs: FileSystem;
  private memory: AlignedMemory | undefined;
  private segment: OpenSegment | undefined;
  /** Place in the file of the memory's first byte, a multiple of DIRECT_ALIGN. */
  private begin = 0;
  /** Bytes in the memory that are in the file. */
  private length = 0;
  /** Behind them there are zeros up to here. */
  private zeros = 0;

  constructor(fs: FileSystem) {
    this.fs = fs;
  }

  /**
   * Makes the chunks, `length` bytes in all, durable at `position` of the segment. False if that
   * did not work, or not for all of them: then the ordinary way has to be gone for the whole.
   * @throws Node's errors: after them it is not known what is on the disk
   */
  write(
    segment: OpenSegment,
    chunks: readonly Uint8Array[],
    length: number,
    position: number,
  ): boolean {
    if (length > CAPACITY - DIRECT_ALIGN) return false;
    if (this.segment !== segment || this.begin + this.length !== position) {
      if (!this.moveTo(segment, position)) return false;
    }
    const { bytes } = this.memory as AlignedMemory;
    let end = this.length;
    for (const chunk of chunks) {
      bytes.set(chunk, end);
      end += chunk.length;
    }
    const rest = end % DIRECT_ALIGN;
    const whole = rest === 0 ? end : end - rest + DIRECT_ALIGN;
    if (whole > this.zeros) bytes.fill(0, Math.max(end, this.zeros), whole);
    // Whatever comes of it: nothing is taken to be in the file that may not be there.
    this.segment = undefined;
    if (this.writeOut(segment.syncedFd as number, bytes.subarray(0, whole)) < whole) return false;
    this.segment = segment;
    this.length = end;
    this.zeros = whole;
    if (end >= DIRECT_ALIGN) {
      bytes.copyWithin(0, end - rest, end);
      this.begin += end - rest;
      this.length = this.zeros = rest;
    }
    return true;
  }

  /** Gives the memory to the next taker. */
  close(): void {
    this.memory?.release();
    this.memory = undefined;
    this.segment = undefined;
  }

  /** Reads the page in which `position` is, up to there. */
  private moveTo(segment: OpenSegment, position: number): boolean {
    this.segment = undefined;
    try {
      segment.syncedFd ??= this.open(segment.path);
      this.memory ??= takeAlignedMemory(CAPACITY);
      const length = position % DIRECT_ALIGN;
      this.length = this.zeros = length;
      this.begin = position - length;
      if (length === 0) return true;
      return this.fs.readSync(segment.fd, this.memory.bytes, length, this.begin) === length;
    } catch {
      // No direct I/O, no descriptor, no memory: whatever it is, nothing has been written yet.
      this.isPossible = false;
      return false;
    }
  }

  private open(path: string): number {
    const fd = openDirect(path, this.fs, constants.O_DSYNC);
    if (fd === undefined) throw new Error('no direct I/O');
    return fd;
  }

  private writeOut(fd: number, bytes: Uint8Array): number {
    try {
      return this.fs.writevSync(fd, [bytes], this.begin);
    } catch (e) {
      if ((e as NodeJS.ErrnoException).code !== 'EINVAL') throw e;
      // It wants another alignment.
      this.isPossible = false;
      return 0;
    }
  }
}
