import { join } from 'node:path';
import { DiskFullError, StorageError, type WalkeepError } from '../../errors.js';
import { firstPiece, openDirect } from '../../files/direct-io.js';
import { fsyncError, storageError } from '../../files/durable.js';
import { type FileSystem, OPEN_DIRECTORY, OPEN_SEGMENT } from '../../files/file-system.js';
import { SpareBuffers } from '../../files/spare-buffers.js';
import type { Lsn } from '../../lsn.js';
import { segmentFileName, segmentOf } from '../../wal/file-name.js';
import { AcknowledgedWal, type DamagedRecord } from './acknowledged-wal.js';
import { type BulkStage, makeBulkStage } from './bulk-stage.js';
import { closeSegment, createSegment, type OpenSegment, requireRoom } from './open-segment.js';
import type { SegmentFinisher } from './segment-finisher.js';
import { SpareSegment } from './spare-segment.js';
import { SyncedTail } from './synced-tail.js';
import { type WalWriter, WriterPositions } from './wal-writer.js';

export interface SegmentWriterOptions {
  directory: string;
  /** Bytes, a power of two. */
  segmentSize: number;
  timeline: number;
  /** Where its stream starts. */
  startLsn: Lsn;
  /** Permission bits of new files. */
  mode: number;
  /** False: no fsync at all, written counts as flushed (--no-sync). */
  sync: boolean;
  /** Bytes below this LSN were acknowledged before: what comes again is compared. */
  compareUntil: bigint;
  /** Of these, bytes below this LSN are known to be good as they are stored. */
  soundUntil?: bigint;
  /** A record below `compareUntil` that is damaged as it is stored: it may come as another one. */
  damaged?: DamagedRecord | undefined;
  finisher: SegmentFinisher;
  fs: FileSystem;
  /** False: everything goes through the page cache. */
  directIo?: boolean | undefined;
  /** Told when acknowledged bytes had vanished (all zero), or their whole file, and come again. */
  onRefill?: (lsn: Lsn, path: string, fresh: boolean) => void;
  /** Told when the damaged record is replaced by what comes. */
  onRepair?: (damaged: DamagedRecord, path: string) => void;
}

/** More chunks than this are copied into one buffer: cheaper than that many iovecs. */
const MAX_IOVECS = 16;
const SCRATCH = 256 * 1024;
/** Writers come one behind the other, with each stream. */
const SCRATCHES = new SpareBuffers(SCRATCH, 1);

/**
 * Writes a contiguous stream of WAL into segment files of one timeline.
 *
 * Invariants: a file is open exactly while its segment is incomplete and was begun; its size is
 * one segment from the start; bytes below `compareUntil` are never replaced by other bytes.
 */
export class SegmentWriter implements WalWriter {
  readonly positions: WriterPositions;
  readonly stage?: BulkStage | undefined;
  private readonly o: SegmentWriterOptions;
  private readonly fs: FileSystem;
  private readonly acknowledged: AcknowledgedWal;
  private readonly dirFd: number;
  private readonly spare: SpareSegment;
  private current: OpenSegment | undefined;
  /** A name was created that no fsync of the directory covers yet. */
  private dirDirty = false;
  /** Names given so far; tells whether a sync of the directory covers the newest. */
  private names = 0;
  private naming: Promise<void> | undefined;
  private wantZeros = false;
  private direct: boolean;
  private readonly tail: SyncedTail | undefined;
  private scratch: Buffer | undefined;
  private closed = false;
  /** A sync failed: nothing is synced again, the next success would prove nothing. */
  private failure: WalkeepError | undefined;

  constructor(options: SegmentWriterOptions) {
    this.o = options;
    this.positions = new WriterPositions(options.startLsn);
    this.fs = options.fs;
    this.direct = options.directIo ?? true;
    if (this.direct && options.sync) this.tail = new SyncedTail(this.fs);
    this.acknowledged = new AcknowledgedWal({ ...options, positions: this.positions });
    try {
      this.spare = new SpareSegment(options);
      this.dirFd = this.fs.openSync(options.directory, OPEN_DIRECTORY, 0);
    } catch (e) {
      throw storageError('open directory', options.directory, e);
    }
    if (this.direct) this.stage = makeBulkStage(options.segmentSize);
  }

  /** Full segments that are not under their final names yet. */
  get pending(): number {
    return this.o.finisher.pending;
  }

  /** A full segment is durable under its final name. @param end its end as a stream offset */
  finished(end: number): void {
    this.positions.synced(end);
  }

  /** Makes a zero-filled file ready, so that syncs of the next new segment are cheap. */
  prepareSpare(): Promise<void> {
    this.wantZeros = true;
    return this.spare.prepare('zeros');
  }

  /**
   * Writes the chunks, in order, at the current position. Synchronous: the page cache takes
   * them faster than a thread pool could. @throws RewriteError, DiskFullError, StorageError
   */
  writeSync(chunks: readonly Uint8Array[]): void {
    if (this.writeWithin(chunks)) return;
    for (const { segment, batch, position } of this.batches(chunks)) {
      let rest = batch;
      let at = position;
      while (rest.length > 0) {
        let n: number;
        try {
          n = this.fs.writevSync(segment.fd, rest, at);
        } catch (e) {
          throw storageError('write to file', segment.path, e);
        }
        at += n;
        rest = this.took(segment, rest, n);
      }
    }
  }

  /**
   * The short way, taken by nearly every read: a few chunks within the open segment, nothing to
   * compare, written in one call. False if it is not that; a short write is gone on with.
   */
  private writeWithin(chunks: readonly Uint8Array[]): boolean {
    const segment = this.current;
    if (!segment || chunks.length > MAX_IOVECS) return false;
    const { written } = this.positions;
    let length = 0;
    for (const chunk of chunks) length += chunk.length;
    if (length >= segment.end - written || written < this.acknowledged.end) return false;
    let n: number;
    try {
      n = this.fs.writevSync(segment.fd, chunks, written - segment.begin);
    } catch (e) {
      throw storageError('write to file', segment.path, e);
    }
    if (n < length) {
      this.writeSync(this.took(segment, chunks, n));
      return true;
    }
    this.positions.wrote(written + n);
    return true;
  }

  /**
   * As `writeSync`, off the event loop: for a disk whose writes stall, and for blocks of a
   * BulkStage, which go past the page cache. The chunks must stay unchanged meanwhile.
   */
  async write(chunks: readonly Uint8Array[]): Promise<void> {
    for (const { segment, batch, position } of this.batches(chunks)) {
      let rest = batch;
      let at = position;
      while (rest.length > 0) {
        const n = await this.writeSome(segment, rest, at);
        at += n;
        rest = this.took(segment, rest, n);
      }
    }
  }

  private async writeSome(
    segment: OpenSegment,
    rest: readonly Uint8Array[],
    at: number,
  ): Promise<number> {
    const { fs } = this;
    try {
      const piece = this.direct ? firstPiece(rest, at) : { direct: false, buffers: rest };
      if (piece.direct) {
        try {
          const fd = segment.directFd ?? openDirect(segment.path, fs);
          if (fd !== undefined) {
            segment.directFd = fd;
            return await fs.writev(fd, piece.buffers, at);
          }
        } catch (e) {
          if ((e as NodeJS.ErrnoException).code !== 'EINVAL') throw e;
        }
        // The file system has no direct I/O, or wants another alignment.
        this.direct = false;
      }
      return await fs.writev(segment.fd, piece.buffers, at);
    } catch (e) {
      throw storageError('write to file', segment.path, e);
    }
  }

  /**
   * `writeSync` and `syncSync` in one call to the system, past the page cache. False if it is not
   * possible for these chunks: then nothing was done. @throws FsyncError (fatal), DiskFullError
   */
  writeSynced(chunks: readonly Uint8Array[]): boolean {
    const segment = this.current;
    const { written } = this.positions;
    // Only this end of the file would be synced: all before it must have been.
    if (!this.tail?.isPossible || !segment?.fresh || segment.synced < written) return false;
    if (this.dirDirty || this.failure || this.pending > 0 || written < this.acknowledged.end)
      return false;
    let length = 0;
    for (const chunk of chunks) length += chunk.length;
    if (length >= segment.end - written) return false;
    try {
      if (!this.tail.write(segment, chunks, length, written - segment.begin)) return false;
    } catch (e) {
      const error = storageError('write to file', segment.path, e);
      // What a full disk refused was not written; anything else may be a sync that failed.
      if (error instanceof DiskFullError) throw error;
      throw this.fail(segment, e);
    }
    segment.synced = written + length;
    this.prepareNext(segment);
    this.positions.wrote(segment.synced);
    this.positions.synced(segment.synced);
    return true;
  }

  /** Makes everything written durable, inline. @throws FsyncError (fatal), DiskFullError */
  syncSync(): void {
    if (this.failure) throw this.failure;
    let target = this.positions.written;
    if (this.o.sync) {
      target = Math.min(target, this.o.finisher.syncPendingSync());
      const segment = this.current;
      try {
        if (segment && segment.synced < target) {
          this.fs.fdatasyncSync(segment.fd);
          segment.synced = target;
          this.prepareNext(segment);
        }
        this.syncDirectory();
      } catch (e) {
        throw this.fail(segment, e);
      }
    }
    this.positions.synced(target);
  }

  /** As `syncSync`, off the event loop; covers what was written when it was called. */
  async sync(): Promise<void> {
    if (this.failure) throw this.failure;
    const target = this.positions.written;
    if (this.o.sync) {
      const segment = this.current;
      try {
        if (segment && segment.synced < target) {
          // Begun before anything else is waited for: once full, the finisher closes this file,
          // and then it waits for what is in flight.
          segment.inFlight = this.fs.fdatasync(segment.fd);
          await segment.inFlight;
          segment.synced = Math.max(segment.synced, target);
        }
      } catch (e) {
        throw this.fail(segment, e);
      }
      await this.o.finisher.syncPending();
      try {
        this.syncDirectory();
      } catch (e) {
        throw this.fail(undefined, e);
      }
    }
    this.positions.synced(target);
  }

  /**
   * Ends writing: syncs, and lets an incomplete segment keep its `.partial` name.
   * @returns the incomplete segment, if there is one.
   */
  async close(): Promise<OpenSegment | undefined> {
    if (this.closed) return undefined;
    this.closed = true;
    const segment = this.current;
    try {
      this.syncSync();
      await this.o.finisher.drain();
      if (this.positions.flushed < this.positions.written) this.syncSync();
      return segment;
    } finally {
      this.current = undefined;
      // The next stream may write the same files: nothing of this one may go on.
      await this.o.finisher.drain().catch(() => undefined);
      await segment?.inFlight?.catch(() => undefined);
      if (segment) closeSegment(segment, this.fs);
      await this.spare.discard();
      await this.naming?.catch(() => undefined);
      this.fs.closeSync(this.dirFd);
      this.tail?.close();
      this.stage?.close();
      if (this.scratch) SCRATCHES.giveBack(this.scratch);
      this.scratch = undefined;
    }
  }

  /**
   * Syncs inside a segment are what a zero-filled next file makes cheaper. Filling it takes the disk
   * from commits, so it waits until that file is likely to be needed.
   */
  private prepareNext(segment: OpenSegment): void {
    if (!this.wantZeros || this.closed) return;
    if (segment.end - segment.synced <= this.o.segmentSize / 2) void this.spare.prepare('zeros');
  }

  private fail(segment: OpenSegment | undefined, cause: unknown): WalkeepError {
    this.failure ??= fsyncError(segment?.path ?? this.o.directory, cause);
    return this.failure;
  }

  /** Makes the name just given durable, off the event loop. */
  private async syncNames(): Promise<void> {
    this.names += 1;
    const given = this.names;
    try {
      await this.fs.fsync(this.dirFd);
    } catch (e) {
      throw this.fail(undefined, e);
    }
    if (given === this.names) this.dirDirty = false;
  }

  private syncDirectory(): void {
    if (!this.dirDirty) return;
    this.fs.fsyncSync(this.dirFd);
    this.dirDirty = false;
  }

  /** Cuts chunks at segment boundaries, opening files as they are needed. */
  private *batches(chunks: readonly Uint8Array[]) {
    let index = 0;
    let skip = 0;
    while (index < chunks.length) {
      // A file of which a sync failed must not become full, and so get its final name.
      if (this.failure) throw this.failure;
      const segment = this.current ?? this.open();
      let room = segment.end - this.positions.written;
      let batch: Uint8Array[] = [];
      while (index < chunks.length && room > 0) {
        const chunk = chunks[index] as Uint8Array;
        const take = Math.min(room, chunk.length - skip);
        batch.push(take === chunk.length ? chunk : chunk.subarray(skip, skip + take));
        room -= take;
        skip += take;
        if (skip === chunk.length) {
          index += 1;
          skip = 0;
        }
      }
      if (batch.length > MAX_IOVECS) batch = [this.joined(batch)];
      const position = this.positions.written - segment.begin;
      this.acknowledged.compare(segment, batch, position);
      yield { segment, batch, position };
    }
  }

  private joined(batch: readonly Uint8Array[]): Uint8Array {
    const length = batch.reduce((sum, b) => sum + b.length, 0);
    if (length > SCRATCH) return Buffer.concat(batch);
    this.scratch ??= SCRATCHES.take();
    let at = 0;
    for (const b of batch) {
      this.scratch.set(b, at);
      at += b.length;
    }
    return this.scratch.subarray(0, length);
  }

  /** Notes `n` bytes written; hands a full segment to the finisher; returns what is left. */
  private took(segment: OpenSegment, batch: readonly Uint8Array[], n: number): Uint8Array[] {
    if (n === 0) throw new StorageError(`could not write to file "${segment.path}": wrote nothing`);
    this.positions.wrote(this.positions.written + n);
    if (this.positions.written === segment.end) {
      if (this.failure) throw this.failure;
      this.current = undefined;
      this.o.finisher.push(segment);
    }
    let left = n;
    let i = 0;
    while (i < batch.length && left >= (batch[i] as Uint8Array).length) {
      left -= (batch[i] as Uint8Array).length;
      i += 1;
    }
    const rest = batch.slice(i);
    if (left > 0) rest[0] = (rest[0] as Uint8Array).subarray(left);
    return rest;
  }

  private open(): OpenSegment {
    const { directory, segmentSize, timeline, mode } = this.o;
    const begin = this.positions.written;
    const segment = segmentOf(this.positions.lsn(begin), segmentSize);
    const name = segmentFileName(timeline, segment, segmentSize);
    const path = join(directory, `${name}.partial`);
    try {
      // Before the next file gets its name: a power cut that kept only the later one would leave a
      // gap. Usually the sync begun with the last name has done it long since.
      if (this.o.sync) this.syncDirectory();
    } catch (e) {
      throw this.fail(undefined, e);
    }
    const { fd, fresh } = this.openFile(path, segmentSize, mode);
    const end = begin + segmentSize;
    this.current = { fd, segment, timeline, name, path, begin, end, synced: begin, fresh };
    if (this.o.sync) {
      // Failures are found by the finisher, which waits for it, and by the next write.
      this.naming = this.syncNames();
      this.naming.catch(() => undefined);
      this.current.named = this.naming;
      if (!this.wantZeros) void this.spare.prepare('sparse');
    }
    return this.current;
  }

  private openFile(
    path: string,
    segmentSize: number,
    mode: number,
  ): { fd: number; fresh: boolean } {
    let fd: number | undefined;
    try {
      const size = this.fs.sizeSync(path);
      if (size === undefined) {
        this.dirDirty = true;
        fd = this.spare.takeAs(path) ?? createSegment(path, this.o);
        // A push was faster: what it brought is gone on with.
        if (fd === undefined) return this.openFile(path, segmentSize, mode);
        return { fd, fresh: true };
      }
      requireRoom(path, size, segmentSize);
      fd = this.fs.openSync(path, OPEN_SEGMENT, mode);
      // A full disk left it short: extend, never truncate, it may hold acknowledged WAL.
      if (size < segmentSize) this.fs.ftruncateSync(fd, segmentSize);
      this.dirDirty = true;
      return { fd, fresh: false };
    } catch (e) {
      if (fd !== undefined) this.fs.closeSync(fd);
      throw storageError('open write-ahead log file', path, e);
    }
  }
}
