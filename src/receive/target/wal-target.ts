import type { WalkeepError } from '../../errors.js';
import type { TargetPositions } from './positions.js';

/**
 * Where a stream puts WAL, as the stream sees it: chunks go in, positions come out. When they are
 * written and synced, and what is done meanwhile, is the target's own business.
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
