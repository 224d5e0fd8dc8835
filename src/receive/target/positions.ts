import type { Lsn } from '../../lsn.js';

/**
 * The positions of one stream's target, in bytes from the stream's start so that no bigint is
 * touched per read. Counted anew at every START_REPLICATION: a position kept over a timeline switch
 * or a reconnect would confirm commits that were never received (contract, defect 10).
 *
 * Invariant: accepted ≥ written ≥ flushed, each only grows.
 */
export class TargetPositions {
  readonly start: Lsn;
  /** Bytes that the target was given; moved by the target. */
  accepted = 0;
  /** Bytes that write(2) took; moved by what writes. */
  written = 0;
  /** Bytes that a finished fsync covers, with the directory entries of their files. */
  flushed = 0;

  constructor(start: Lsn) {
    this.start = start;
  }

  lsn(offset: number): Lsn {
    return (this.start + BigInt(offset)) as Lsn;
  }

  /** Moves `written` up. A caller that breaks the invariant has a bug that could lose data. */
  wrote(offset: number): void {
    if (offset > this.accepted || offset < this.written) {
      throw new RangeError(`written ${offset} outside ${this.written}..${this.accepted}`);
    }
    this.written = offset;
  }

  /** Moves `flushed` up; later syncs may finish first, so a lower value is no news. */
  synced(offset: number): void {
    if (offset > this.written) throw new RangeError(`flushed ${offset} beyond ${this.written}`);
    if (offset > this.flushed) this.flushed = offset;
  }
}
