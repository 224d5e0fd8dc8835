import { RewriteError } from '../../errors.js';
import { storageError } from '../../files/durable.js';
import type { FileSystem } from '../../files/file-system.js';
import { formatLsn, type Lsn } from '../../lsn.js';
import { firstDifference } from '../../wal/same-wal.js';
import { WalVerifier } from '../../wal/verifier.js';
import { lostSectorsOnly } from './lost-sectors.js';
import type { OpenSegment } from './open-segment.js';
import type { TargetPositions } from './positions.js';

interface Options {
  /** Bytes, a power of two. */
  segmentSize: number;
  /** Bytes below this LSN were acknowledged before: what comes again is compared. */
  compareUntil: bigint;
  /** Of these, bytes below this LSN are known to be good as they are stored. */
  soundUntil?: bigint;
  positions: TargetPositions;
  fs: FileSystem;
  /** Told when acknowledged bytes had vanished (all zero), or their whole file, and come again. */
  onRefill?: (lsn: Lsn, path: string, fresh: boolean) => void;
}

/** The bytes that were acknowledged before a stream began: other ones must not take their place. */
export class AcknowledgedWal {
  /** Stream offset behind them; negative where nothing is compared. */
  readonly end: number;
  private readonly o: Options;
  /** Stream offset up to which bytes are part of nothing: see WalWalker. */
  private unusedEnd = 0;

  constructor(options: Options) {
    this.o = options;
    this.end = Number(options.compareUntil - options.positions.start);
  }

  /**
   * Compares what is about to be written at `position` of a segment's file.
   * @throws RewriteError for other bytes where acknowledged ones are stored
   */
  compare(segment: OpenSegment, batch: readonly Uint8Array[], position: number): void {
    const limit = this.end - segment.begin;
    let at = position;
    for (const chunk of batch) {
      const length = Math.min(chunk.length, limit - at);
      if (length <= 0) return;
      const stored = Buffer.alloc(length);
      this.read(segment, stored, at);
      const news = chunk.subarray(0, length);
      for (let i = 0; i < length; ) {
        i = firstDifference(stored, news, i, length);
        if (i === length) break;
        if (this.isUnused(segment, batch, position, at + i)) {
          i = Math.min(length, this.unusedEnd - segment.begin - at);
          continue;
        }
        this.refuse(segment, stored, news, at, i);
        break;
      }
      at += chunk.length;
    }
  }

  /** True if the byte at `offset` of the file is part of nothing, as the server sends the segment now. */
  private isUnused(
    segment: OpenSegment,
    batch: readonly Uint8Array[],
    position: number,
    offset: number,
  ): boolean {
    if (segment.begin + offset < this.unusedEnd) return true;
    const { positions, segmentSize } = this.o;
    const startLsn = positions.lsn(segment.begin);
    const verifier = new WalVerifier({ startLsn, segmentSize, timeline: segment.timeline });
    const piece = Buffer.alloc(Math.min(position, 1024 * 1024));
    for (let at = 0; at < position; at += piece.length) {
      const length = Math.min(piece.length, position - at);
      this.read(segment, piece.subarray(0, length), at);
      verifier.feed(piece, 0, length);
    }
    let at = position;
    for (const chunk of batch) {
      if (at < offset) verifier.feed(chunk, 0, Math.min(chunk.length, offset - at));
      at += chunk.length;
    }
    this.unusedEnd = segment.begin + offset + verifier.unused;
    return verifier.unused > 0;
  }

  private read({ fd, path }: OpenSegment, into: Uint8Array, at: number): void {
    try {
      this.o.fs.readSync(fd, into, into.length, at);
    } catch (e) {
      throw storageError('read file', path, e);
    }
  }

  /** @param i of the first byte that differs */
  private refuse(
    segment: OpenSegment,
    stored: Uint8Array,
    news: Uint8Array,
    at: number,
    i: number,
  ): void {
    const { positions, soundUntil = 0n, compareUntil, onRefill } = this.o;
    const lsn = positions.lsn(segment.begin + at + i);
    // The disk lost what it had confirmed. Filling in loses nothing more.
    if (lsn >= soundUntil && lostSectorsOnly(stored, news, at)) {
      onRefill?.(lsn, segment.path, segment.fresh);
      return;
    }
    throw new RewriteError(
      `the server sent other bytes at ${formatLsn(lsn)} than those acknowledged as flushed up to ${formatLsn(compareUntil as Lsn)} in "${segment.path}"`,
      {
        lsn,
        path: segment.path,
        expected: `byte ${stored[i]}`,
        actual: `byte ${news[i]}`,
        hint: 'The server lost or rewrote WAL that is stored here, or it is another server. Nothing was overwritten; use a new directory for it.',
      },
    );
  }
}
