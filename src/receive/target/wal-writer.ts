import type { Lsn } from '../../lsn.js';
import type { BulkStage } from './bulk-stage.js';
import type { TargetPositions } from './wal-target.js';

/**
 * What writes and syncs WAL, on a disk or in a sink: the lower end of a `PacedTarget`, which says
 * when. Chunks arrive in order and without a gap.
 */
export interface WalWriter {
  /** Its own, moved by nobody else: `written` when bytes are taken, `flushed` when they are durable. */
  readonly positions: TargetPositions;
  /**
   * Takes the chunks before it returns; they are views of a buffer that is used again. Absent:
   * the writer only writes asynchronously and gets copies.
   */
  writeSync?(chunks: readonly Uint8Array[]): void;
  write(chunks: readonly Uint8Array[]): Promise<void>;
  /**
   * Where WAL is collected while it comes in bulk; `write` then gets its blocks, which are used
   * again once it has returned. Absent: the writer may keep what it gets.
   */
  readonly stage?: BulkStage | undefined;
  /**
   * `writeSync` and `syncSync` in one, where that is cheaper. False: not for these chunks, and
   * nothing was done.
   */
  writeSynced?(chunks: readonly Uint8Array[]): boolean;
  /** Makes all that was written durable before it returns. Absent: only `sync`. */
  syncSync?(): void;
  /** Makes durable what was written when it was called. */
  sync(): Promise<void>;
  /** Work that piles up behind the writes; the stream is paused while it is above 8. */
  readonly pending: number;
  /** Syncs and ends. Called once, at a clean end of the stream. */
  close(): Promise<unknown>;
}

/** The positions of one writer, which moves them as it goes and begins anew with each stream. */
export class WriterPositions implements TargetPositions {
  readonly start: Lsn;
  written = 0;
  flushed = 0;

  constructor(start: Lsn) {
    this.start = start;
  }

  lsn(offset: number): Lsn {
    return (this.start + BigInt(offset)) as Lsn;
  }

  /** Moves `written` up. A caller that breaks the invariant has a bug that could lose data. */
  wrote(offset: number): void {
    if (offset < this.written) throw new RangeError(`written ${offset} below ${this.written}`);
    this.written = offset;
  }

  /** Moves `flushed` up; later syncs may finish first, so a lower value is no news. */
  synced(offset: number): void {
    if (offset > this.written) throw new RangeError(`flushed ${offset} beyond ${this.written}`);
    if (offset > this.flushed) this.flushed = offset;
  }
}
