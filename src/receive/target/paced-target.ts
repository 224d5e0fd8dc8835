import { performance } from 'node:perf_hooks';
import type { WalkeepError } from '../../errors.js';
import { storageError } from '../../files/durable.js';
import { SyncPace } from './sync-pace.js';
import type { SyncTimes } from './sync-times.js';
import type { TargetListener, TargetPositions, WalTarget } from './wal-target.js';
import type { WalWriter } from './wal-writer.js';
import { WriteQueue } from './write-queue.js';

/**
 * When the write position is told: `sync` with the sync that covers it, as pg_receivewal does;
 * `slow` before a sync that is known to be slow; `write` always at once (remote_write commits do
 * not wait for the sync, all others pay for a second reply).
 */
export type WriteReport = 'sync' | 'slow' | 'write';

export interface PacedTargetOptions {
  writer: WalWriter;
  /** Sync whenever new WAL is written, and tell of it at once. */
  synchronous: boolean;
  writeReport: WriteReport;
  /** Without `synchronous`: sync at least so often, milliseconds. Absent: as segments complete. */
  syncInterval?: number | undefined;
  /** Counts the syncs. */
  syncTimes?: SyncTimes | undefined;
  /** Ends the writer and what belongs to its end; absent: the writer's own. */
  close?: () => Promise<void>;
  /** Ends the writer after a failure. Absent: it holds nothing. */
  abandon?: () => Promise<void>;
}

/** A sync above this goes to the thread pool next time; one below half of it comes back inline. */
const SLOW_SYNC_MS = 10;
/** A write above this means that the disk stalls: writes go to the thread pool. */
const SLOW_WRITE_MS = 100;
/** Full segments waiting to be finished before the stream is paused; half of it to go on. */
const MAX_PENDING = 8;
/** While WAL keeps coming a sync covers at least this many milliseconds of it. */
const CATCH_UP_SYNC_MS = 50;

/**
 * Chooses for each read how it is written, and when it is synced: at once and inline while the disk
 * is quick (a turn of the thread pool costs more than it saves), in large blocks while WAL comes in
 * bulk, off the event loop while the disk stalls, so that the server is still answered. All that one
 * read brought is synced at once (group commit); the next sync starts as soon as more was written.
 */
export class PacedTarget implements WalTarget {
  readonly positions: TargetPositions;
  private readonly writer: WalWriter;
  private readonly synchronous: boolean;
  private readonly writeReport: WriteReport;
  private readonly syncInterval: number;
  private readonly times: SyncTimes | undefined;
  private readonly end: () => Promise<unknown>;
  private readonly breakOff: () => Promise<unknown>;
  private readonly queue: WriteQueue;
  /** Where commits wait for the write only. */
  private readonly pace: SyncPace | undefined;
  private listener: TargetListener | undefined;
  private stopping = false;
  /** Too much is to be written; too many segments are to be finished. */
  private full = { queue: false, pending: false };

  /** Bytes taken from the stream. */
  private accepted = 0;
  /** Stream offset of the end of WAL that the server has, as of the last WAL. */
  private serverEnd = 0;
  private receivedAt = 0;
  private slowWrite = false;
  private syncing: Promise<void> | undefined;
  private slowSync = false;
  private lastSync = 0;

  constructor({ writer, synchronous, writeReport, close, abandon, ...o }: PacedTargetOptions) {
    this.writer = writer;
    this.syncInterval = o.syncInterval ?? Number.POSITIVE_INFINITY;
    this.times = o.syncTimes;
    this.positions = writer.positions;
    this.synchronous = synchronous;
    this.writeReport = writeReport;
    this.end = close ?? (() => writer.close());
    this.breakOff = abandon ?? (async () => {});
    this.queue = new WriteQueue(
      writer,
      (took) => {
        this.slowWrite = took > SLOW_WRITE_MS / 2;
        this.afterWrite();
        this.changeRoom();
      },
      (e) => this.lose(storageError('write WAL in', 'the archive', e)),
    );
    if (writeReport === 'write') {
      this.pace = new SyncPace(
        () => this.flush(),
        () => writer.positions.written,
      );
    }
  }

  start(listener: TargetListener): void {
    this.listener = listener;
  }

  get hasRoom(): boolean {
    const { full, queue } = this;
    const { pending } = this.writer;
    // Each on its own: what ended a pause is not to wait for what began none.
    full.queue = full.queue ? !queue.hasRoom : queue.isFull;
    full.pending = pending > (full.pending ? MAX_PENDING / 2 : MAX_PENDING);
    return !full.queue && !full.pending;
  }

  accept(chunks: readonly Uint8Array[], serverEnd: number, now: number): void {
    const { positions, writer, queue } = this;
    const begin = this.accepted;
    for (const chunk of chunks) this.accepted += chunk.length;
    this.serverEnd = serverEnd;
    this.receivedAt = now;
    const { stage } = writer;
    const bulk = stage !== undefined && serverEnd - this.accepted > stage.worthwhile;
    if (bulk || this.slowWrite || queue.isBusy || !writer.writeSync) {
      queue.push(chunks, Number(positions.start & 0xffffn) + begin, bulk);
    } else if (!this.writeSynced(chunks)) {
      const began = performance.now();
      writer.writeSync(chunks);
      const took = performance.now() - began;
      if (took > SLOW_WRITE_MS) this.slowWrite = true;
      this.afterWrite();
    }
  }

  flush(): boolean {
    const { positions, writer } = this;
    if (positions.flushed === positions.written || this.syncing || this.stopping) return false;
    const began = performance.now();
    // Who was told of the write goes on at once: its next WAL must not wait behind the sync.
    if (this.slowSync || this.queue.isBusy || this.tellsWrites || !writer.syncSync) {
      this.syncing = this.syncInBackground(began);
      return false;
    }
    writer.syncSync();
    this.synced(began);
    return true;
  }

  tick(now: number, active: boolean): void {
    this.queue.releaseOld(now);
    if (!active) return;
    if (this.synchronous) this.flush();
    else if (now - this.lastSync >= this.syncInterval) this.flushAside(now);
  }

  stop(): void {
    this.stopping = true;
    this.pace?.stop();
  }

  async idle(): Promise<void> {
    while (this.queue.isBusy || this.syncing) {
      await this.queue.idle();
      await this.syncing;
    }
  }

  async close(): Promise<void> {
    await this.end();
  }

  async abandon(): Promise<void> {
    await this.breakOff();
  }

  /** The writer has more work behind its writes, or less. */
  changeRoom(): void {
    this.listener?.onRoom();
  }

  /** What was accepted is not stored, and nothing more will be. */
  lose(error: WalkeepError): void {
    this.listener?.onLost(error);
  }

  /** Both in one, where a sync would follow at once and nobody is to be told of the write before. */
  private writeSynced(chunks: readonly Uint8Array[]): boolean {
    if (!this.synchronous || this.stopping || this.syncing || this.slowSync) return false;
    if (this.accepted < this.serverEnd || this.tellsWrites) return false;
    if (!this.writer.writeSynced?.(chunks)) return false;
    this.requireAccepted();
    // Since the read that brought it: nearly the same, and a commit pays for each look at the clock.
    this.synced(this.receivedAt);
    return true;
  }

  /** A writer that has more than it was given has a bug that could lose data. */
  private requireAccepted(): void {
    const { written } = this.positions;
    if (written > this.accepted) throw new RangeError(`written ${written} of ${this.accepted}`);
  }

  private get tellsWrites(): boolean {
    return this.writeReport === 'write' || (this.writeReport === 'slow' && this.slowSync);
  }

  private afterWrite(): void {
    this.requireAccepted();
    if (!this.synchronous || this.stopping) return;
    if (this.tellsWrites) this.listener?.onNews('written', performance.now());
    // More is on its way: one sync for all of it, unless that takes long.
    const behind = this.positions.written < this.serverEnd;
    if (behind && performance.now() - this.lastSync < CATCH_UP_SYNC_MS) return;
    this.flushInTime();
  }

  private flushInTime(): void {
    if (!this.pace) this.flush();
    else if (!this.syncing) this.pace.request(this.receivedAt);
  }

  /** Nobody waits for it: a long one must hold up nothing. */
  private flushAside(now: number): void {
    const { flushed, written } = this.positions;
    if (flushed === written || this.syncing || this.stopping) return;
    this.syncing = this.syncInBackground(now);
  }

  private synced(began: number): void {
    this.lastSync = performance.now();
    this.times?.note(this.lastSync - began);
    this.slowSync = this.lastSync - began > SLOW_SYNC_MS;
    this.listener?.onNews('flushed', this.lastSync);
  }

  private async syncInBackground(began: number): Promise<void> {
    try {
      await this.writer.sync();
      this.lastSync = performance.now();
      this.times?.note(this.lastSync - began);
      this.slowSync = this.lastSync - began > SLOW_SYNC_MS / 2;
      this.syncing = undefined;
      this.listener?.onNews('flushed', this.lastSync);
      if (!this.synchronous || this.stopping) return;
      this.pace?.ended(this.lastSync);
      if (this.positions.flushed < this.positions.written) this.flushInTime();
    } catch (e) {
      this.syncing = undefined;
      this.lose(storageError('sync', 'the archive', e));
    }
  }
}
