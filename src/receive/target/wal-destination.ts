import type { BulkStage } from './bulk-stage.js';

/**
 * What writes and syncs WAL, on a disk or in a sink: the lower end of a `PacedTarget`. Chunks arrive
 * in order and without a gap. It moves the positions: `wrote` when bytes are taken, `synced` only
 * for what is durable.
 */
export interface WalDestination {
  /**
   * Takes the chunks before it returns; they are views of a buffer that is used again. Absent:
   * the destination only writes asynchronously and gets copies.
   */
  writeSync?(chunks: readonly Uint8Array[]): void;
  write(chunks: readonly Uint8Array[]): Promise<void>;
  /**
   * Where WAL is collected while it comes in bulk; `write` then gets its blocks, which are used
   * again once it has returned. Absent: the destination may keep what it gets.
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
