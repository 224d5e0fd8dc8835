import { RewriteError } from '../../errors.js';
import { storageError } from '../../files/durable.js';
import type { FileSystem } from '../../files/file-system.js';
import { formatLsn, type Lsn } from '../../lsn.js';
import { firstDifference } from '../../wal/same-wal.js';
import { WalVerifier } from '../../wal/verifier.js';
import { lostSectorsOnly } from './lost-sectors.js';
import type { OpenSegment } from './open-segment.js';
import type { TargetPositions } from './wal-target.js';

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
  /** Below `compareUntil`. */
  damaged?: DamagedRecord | undefined;
  /** Told when it is replaced by what comes. */
  onRepair?: (damaged: DamagedRecord, path: string) => void;
}

/**
 * A record that is damaged as it is stored. It was acknowledged before its end was there, and with it
 * its checksum, and no recovery can use it: what comes in its place can only be better. All else that
 * was acknowledged is compared, up to it and behind it.
 */
export interface DamagedRecord {
  /** Where it begins, or the WAL that is compared, if that is within it. */
  begin: Lsn;
  why: string;
  /** Stands at `begin`: it finds the end of the record as it comes. */
  verifier: WalVerifier;
}

/** No record is shorter: of so many bytes each ends another one. */
const SHORTEST = 16;

/** The bytes that were acknowledged before a stream began: other ones must not take their place. */
export class AcknowledgedWal {
  /** Stream offset behind them; negative where nothing is compared. */
  readonly end: number;
  private readonly o: Options;
  /** Stream offset up to which bytes are part of nothing: see WalWalker. */
  private unusedEnd = 0;
  /** Stream offsets of the damaged record; where it ends is known once its end came. */
  private damagedBegin = Number.POSITIVE_INFINITY;
  private damagedEnd = Number.POSITIVE_INFINITY;
  private repairs = false;

  constructor(options: Options) {
    this.o = options;
    const { start } = options.positions;
    this.end = Number(options.compareUntil - start);
    if (options.damaged) this.damagedBegin = Number(options.damaged.begin - start);
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
      this.findDamagedEnd(news, segment.begin + at);
      for (let i = 0; i < length; ) {
        i = firstDifference(stored, news, i, length);
        if (i === length) break;
        if (this.isUnused(segment, batch, position, at + i)) {
          i = Math.min(length, this.unusedEnd - segment.begin - at);
          continue;
        }
        if (this.isLost(segment, stored, news, at, i)) break;
        if (!this.isDamaged(segment, at + i)) this.refuse(segment, stored, news, at, i);
        i = Math.min(length, this.damagedEnd - segment.begin - at);
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

  /** Looks for the end of the damaged record in what comes at a stream offset. */
  private findDamagedEnd(news: Uint8Array, offset: number): void {
    const { damaged } = this.o;
    if (!damaged || this.damagedEnd < Number.POSITIVE_INFINITY) return;
    const { begin, verifier } = damaged;
    for (let i = Math.max(0, this.damagedBegin - offset); i < news.length; i += SHORTEST) {
      verifier.feed(news, i, Math.min(news.length, i + SHORTEST));
      if (verifier.validEnd <= begin) continue;
      this.damagedEnd = Number(verifier.validEnd - this.o.positions.start);
      return;
    }
  }

  /** True within the damaged record, which is told, unless what comes is no better. */
  private isDamaged(segment: OpenSegment, at: number): boolean {
    const { damaged, onRepair } = this.o;
    const offset = segment.begin + at;
    if (!damaged || damaged.verifier.fault) return false;
    if (offset < this.damagedBegin || offset >= this.damagedEnd) return false;
    if (!this.repairs) onRepair?.(damaged, segment.path);
    this.repairs = true;
    return true;
  }

  private read({ fd, path }: OpenSegment, into: Uint8Array, at: number): void {
    try {
      this.o.fs.readSync(fd, into, into.length, at);
    } catch (e) {
      throw storageError('read file', path, e);
    }
  }

  /**
   * True if the disk lost what it had confirmed. Filling in loses nothing more.
   * @param i of the first byte that differs
   */
  private isLost(
    segment: OpenSegment,
    stored: Uint8Array,
    news: Uint8Array,
    at: number,
    i: number,
  ): boolean {
    const { positions, soundUntil = 0n, onRefill } = this.o;
    const lsn = positions.lsn(segment.begin + at + i);
    if (lsn < soundUntil || !lostSectorsOnly(stored.subarray(i), news.subarray(i), at + i)) {
      return false;
    }
    onRefill?.(lsn, segment.path, segment.fresh);
    return true;
  }

  private refuse(
    segment: OpenSegment,
    stored: Uint8Array,
    news: Uint8Array,
    at: number,
    i: number,
  ): never {
    const { positions, compareUntil } = this.o;
    const lsn = positions.lsn(segment.begin + at + i);
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
