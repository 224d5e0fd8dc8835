import type { Lsn } from '../wal/lsn.js';

/**
 * The positions of one stream, in bytes from its start so that no bigint is touched per read.
 * Counted anew at every START_REPLICATION: a position kept over a timeline switch or a reconnect
 * would confirm commits that were never received (contract, defect 10).
 *
 * Invariant: received ≥ written ≥ flushed, each only grows.
 */
export class StreamProgress {
  readonly start: Lsn;
  /** Bytes taken from the socket. */
  received = 0;
  /** Bytes that write(2) took. */
  written = 0;
  /** Bytes that a finished fsync covers, with the directory entries of their files. */
  flushed = 0;
  /** What the last status reply said; -1 before the first. */
  reportedWrite = -1;
  reportedFlush = -1;

  constructor(start: Lsn) {
    this.start = start;
  }

  lsn(offset: number): Lsn {
    return (this.start + BigInt(offset)) as Lsn;
  }

  /** Moves `written` up. A caller that breaks the invariant has a bug that could lose data. */
  wrote(offset: number): void {
    if (offset > this.received || offset < this.written) {
      throw new RangeError(`written ${offset} outside ${this.written}..${this.received}`);
    }
    this.written = offset;
  }

  /** Moves `flushed` up; later syncs may finish first, so a lower value is no news. */
  synced(offset: number): void {
    if (offset > this.written) throw new RangeError(`flushed ${offset} beyond ${this.written}`);
    if (offset > this.flushed) this.flushed = offset;
  }
}

/** When an unasked status reply is due; times in milliseconds of one monotonic clock. */
export class StatusSchedule {
  readonly interval: number;
  private last: number | undefined;

  /** @param interval milliseconds between replies; 0: none unless asked for. */
  constructor(interval: number) {
    this.interval = interval;
  }

  /** True at the very start and whenever `interval` has passed since the last reply. */
  due(now: number): boolean {
    return this.interval > 0 && (this.last === undefined || now - this.last >= this.interval);
  }

  sent(now: number): void {
    this.last = now;
  }

  /** Milliseconds since the last reply; Infinity before the first. */
  sinceLast(now: number): number {
    return this.last === undefined ? Number.POSITIVE_INFINITY : now - this.last;
  }
}
