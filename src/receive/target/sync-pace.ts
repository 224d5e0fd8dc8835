import { performance } from 'node:perf_hooks';

/** Milliseconds from the end of one sync to the beginning of the next while WAL keeps coming. */
const INTERVAL_MS = 10;
/** Without more WAL for so many milliseconds the next sync begins at once. */
const QUIET_MS = 2;

/**
 * Keeps syncs apart that no commit waits for (remote_write): one behind the other they would take
 * the disk, and the processor, from the commits. A commit that does wait is alone with its WAL: its
 * session sends nothing more, and what is quiet is synced.
 */
export class SyncPace {
  private readonly sync: () => void;
  private readonly position: () => number;
  private timer: NodeJS.Timeout | undefined;
  private lastSync = 0;
  private seen = 0;

  /**
   * @param sync begins a sync
   * @param position grows with the WAL that is to be synced
   */
  constructor(sync: () => void, position: () => number) {
    this.sync = sync;
    this.position = position;
  }

  /** There is something to sync: begins it now, or when it is time. */
  request(now: number): void {
    if (this.timer) return;
    if (now - this.lastSync >= INTERVAL_MS) {
      this.sync();
      return;
    }
    this.seen = this.position();
    this.timer = setTimeout(() => this.look(), QUIET_MS);
  }

  /** A sync has ended. */
  ended(now: number): void {
    this.lastSync = now;
  }

  stop(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
  }

  private look(): void {
    this.timer = undefined;
    if (this.seen === this.position()) this.sync();
    else this.request(performance.now());
  }
}
