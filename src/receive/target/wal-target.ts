import type { WalkeepError } from '../../errors.js';
import type { Lsn } from '../../lsn.js';

/**
 * Up to where a target has the WAL of its stream, in bytes from the stream's start so that no bigint
 * is touched per read. Counted anew at every START_REPLICATION: a position kept over a timeline
 * switch or a reconnect would confirm commits that were never received (contract, defect 10).
 *
 * Invariant: what the target accepted ≥ written ≥ flushed, each only grows.
 */
export interface TargetPositions {
  readonly start: Lsn;
  /** Bytes taken, on a disk by write(2): what a reply says is written. */
  readonly written: number;
  /**
   * Bytes that are durable wherever they are promised to be, on a disk covered by a finished fsync
   * with the directory entries of their files: what a reply says is flushed.
   */
  readonly flushed: number;
  lsn(offset: number): Lsn;
}

/**
 * Where a stream puts WAL, as the stream sees it: chunks go in, positions come out. When they are
 * written and synced, and what is done meanwhile, is the target's own business.
 *
 * Whatever received WAL has to reach before it is acknowledged is a target: `directory-target.ts`,
 * `sink-target.ts`. Several at once are again one, made of them and with positions of its own: those
 * of its parts that the promise needs, as the lowest `flushed` where each must have it.
 */
export interface WalTarget {
  readonly positions: TargetPositions;
  /** False while too much is waiting: the socket should be paused. Falls late and rises late. */
  readonly hasRoom: boolean;
  /** Called before anything else; the listener is told from then on. */
  start(listener: TargetListener): void;
  /**
   * Takes the next WAL, without a gap. The chunks are views of a buffer that is used again.
   * @param serverEnd stream offset of the end of WAL that the server has
   * @param now milliseconds; when the WAL was received, or later
   * @throws WalkeepError nothing more can be taken
   */
  accept(chunks: readonly Uint8Array[], serverEnd: number, now: number): void;
  /** Begins to make durable what was written. True if that was done, and told, when it returns. */
  flush(): boolean;
  /** Called a few times a second. @param active false while the stream is paused */
  tick(now: number, active: boolean): void;
  /** Begins no sync any more of its own accord: the stream ends. */
  stop(): void;
  /** Resolves when no write or sync is under way. */
  idle(): Promise<void>;
  /** Syncs and ends. Called once, at a clean end of the stream. */
  close(): Promise<void>;
  /**
   * Ends after a failure, that of `close` too: keeps what was written, and makes it durable where
   * that can still be believed.
   */
  abandon(): Promise<void>;
}

/** What a target tells its stream. */
export interface TargetListener {
  /** Positions moved that the server should hear of at once. @param now milliseconds */
  onNews(what: 'written' | 'flushed', now: number): void;
  /** `hasRoom` may have changed. */
  onRoom(): void;
  /** What was accepted is not stored, and nothing more will be. */
  onLost(error: WalkeepError): void;
}
