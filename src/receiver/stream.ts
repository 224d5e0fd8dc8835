import { performance } from 'node:perf_hooks';
import type { ReplicationConnection } from '../connection/connection.js';
import type { WalStream } from '../connection/wal-stream.js';
import { StreamPositionError, TimeoutError, type WalkeepError } from '../errors.js';
import type { CopyBothHandler } from '../protocol/frame-reader.js';
import type { StreamEnd } from '../protocol/replication.js';
import { storageError } from '../storage/durable.js';
import { StatusSchedule, type StreamProgress } from '../storage/progress.js';
import { formatLsn, INVALID_LSN, type Lsn } from '../wal/lsn.js';
import type { WalInspector } from './inspector.js';
import { SyncPace } from './sync-pace.js';
import type { WalTarget } from './wal-target.js';
import { WriteQueue } from './write-queue.js';

/**
 * When the write position is told: `sync` with the sync that covers it, as pg_receivewal does;
 * `slow` before a sync that is known to be slow; `write` always at once (remote_write commits do
 * not wait for the sync, all others pay for a second reply).
 */
export type WriteReport = 'sync' | 'slow' | 'write';

export interface StreamOptions {
  connection: ReplicationConnection;
  slot?: string;
  timeline: number;
  endLsn?: Lsn;
  progress: StreamProgress;
  target: WalTarget;
  /** Checks WAL before it is written; absent: nothing is checked. */
  inspector?: WalInspector;
  /** Gets what the inspector refused, from the given LSN on, before the stream fails. */
  onRefused?: (lsn: Lsn, bytes: Buffer, verifiedEnd: Lsn, error: WalkeepError) => void;
  /** Sync whenever new WAL is written and report it at once. */
  synchronous: boolean;
  /** Report flush positions: with a slot, or synchronous. Otherwise flush is 0, "unknown". */
  reportFlush: boolean;
  writeReport: WriteReport;
  /** Report apply = flush, so that remote_apply commits are confirmed though nothing is replayed. */
  applyIsFlush: boolean;
  /** Milliseconds; 0: replies only when asked. */
  statusInterval: number;
  /** Milliseconds of silence before the server is asked; it is given up at twice that. 0: never. */
  receiveTimeout: number;
  /** Called at most four times a second when positions moved. */
  onProgress: (serverEnd: Lsn) => void;
}

/** How a stream ended without an error; `lsn` is the last position received. */
export type StreamOutcome =
  | { kind: 'ended'; end: StreamEnd; lsn: Lsn }
  | { kind: 'stopped'; reason: 'endpos' | 'signal'; lsn: Lsn };

/** A sync above this goes to the thread pool next time; one below half of it comes back inline. */
const SLOW_SYNC_MS = 10;
/** A write above this means that the disk stalls: writes go to the thread pool. */
const SLOW_WRITE_MS = 100;
/** Full segments waiting to be finished before the socket is paused, and resumed. */
const MAX_PENDING = 8;
/** While WAL keeps coming a sync covers at least this many milliseconds of it. */
const CATCH_UP_SYNC_MS = 50;
/** The status interval while paused, also with `-s 0`: any reply resets wal_sender_timeout. */
const PAUSED_STATUS_MS = 10_000;
/** A paused stream that gets nothing to disk for so long is given up: it hangs a shutdown. */
const STALL_LIMIT_MS = 60_000;
const TICK_MS = 250;

/**
 * One COPY BOTH stream on one timeline: takes XLogData, writes it, syncs, replies.
 *
 * All that one socket read brought is written at once and synced at once (group commit); the next
 * sync starts as soon as more was written.
 */
export class StreamSession implements CopyBothHandler {
  private readonly o: StreamOptions;
  private readonly progress: StreamProgress;
  private readonly schedule: StatusSchedule;
  private stream: WalStream | undefined;
  private settle: ((outcome: 'endpos' | 'signal' | 'server' | WalkeepError) => void) | undefined;
  private stopping = false;
  /** Why what was received last is not stored, though the stream was to end without an error. */
  private lost: WalkeepError | undefined;
  /** Views into the read buffer; valid until the read's callback returns. */
  private chunks: Buffer[] = [];
  /** Stream offset of the end of WAL that the server has, as of its last message. */
  private serverEnd = 0;
  private readonly endOffset: number;

  private syncing: Promise<void> | undefined;
  private slowSync = false;
  private lastSync = 0;
  private replyOwed = false;

  /** Where commits wait for the write only. */
  private readonly pace: SyncPace | undefined;
  private readonly queue: WriteQueue;
  private slowWrite = false;

  private pausedSince: number | undefined;
  private movedAt = 0;
  private movedTo = 0;
  private activeSince = 0;
  private askedAt = -1;
  private seenByOwner = -1;

  constructor(options: StreamOptions) {
    this.o = options;
    this.progress = options.progress;
    this.schedule = new StatusSchedule(options.statusInterval);
    this.queue = new WriteQueue(
      options.target,
      (took) => {
        this.slowWrite = took > SLOW_WRITE_MS / 2;
        this.afterWrite();
        this.regulate();
      },
      (e) => this.onLost(storageError('write WAL in', 'the archive', e)),
    );
    if (options.writeReport === 'write') {
      this.pace = new SyncPace(
        () => this.flush(),
        () => this.progress.written,
      );
    }
    const { endLsn } = options;
    this.endOffset =
      endLsn === undefined ? Number.POSITIVE_INFINITY : Number(endLsn - options.progress.start);
  }

  /**
   * Streams until the end position, the signal, or the server's end of the timeline. The target
   * is closed in every case but an error, where that is the caller's business.
   *
   * @param onStarted called when the server agreed to stream
   */
  async run(signal: AbortSignal, onStarted: () => void): Promise<StreamOutcome> {
    const { connection, slot, timeline } = this.o;
    const result = new Promise<'endpos' | 'signal' | 'server'>((resolve, reject) => {
      this.settle = (how) => {
        this.settle = undefined;
        this.stopping = true;
        if (typeof how === 'string') resolve(how);
        else reject(how);
      };
    });
    result.catch(() => undefined);
    const onAbort = () => this.settle?.('signal');
    signal.addEventListener('abort', onAbort, { once: true });
    let timer: NodeJS.Timeout | undefined;
    try {
      const started = await connection.startReplication(
        { ...(slot === undefined ? {} : { slot }), startLsn: this.progress.start, timeline },
        this,
      );
      if ('kind' in started) {
        await this.o.target.close();
        return { kind: 'ended', end: started, lsn: this.progress.start };
      }
      this.stream = started;
      onStarted();
      this.activeSince = this.movedAt = performance.now();
      timer = setInterval(() => this.tick(), TICK_MS);
      this.tick();
      this.catchUpReplies();
      if (signal.aborted) onAbort();
      const how = await result;
      await this.idle();
      if (this.lost) throw this.lost;
      await this.o.target.close();
      this.sendStatus(false);
      const lsn = this.progress.lsn(this.progress.received);
      const end = await started.finish();
      return how === 'server' ? { kind: 'ended', end, lsn } : { kind: 'stopped', reason: how, lsn };
    } finally {
      clearInterval(timer);
      this.pace?.stop();
      signal.removeEventListener('abort', onAbort);
      this.stopping = true;
      await this.idle().catch(() => undefined);
    }
  }

  // --- CopyBothHandler ---------------------------------------------------------------------

  onWalHeader(walStart: bigint, walEnd: bigint): void {
    if (this.stopping) return;
    const { progress } = this;
    if (Number(walStart - progress.start) !== progress.received) {
      const expected = progress.lsn(progress.received);
      const kind = walStart > expected ? 'a gap' : 'a step back';
      throw new StreamPositionError(
        `${kind} in the stream: got WAL at ${formatLsn(walStart)}, expected ${formatLsn(expected)}`,
        { lsn: expected, expected: formatLsn(expected), actual: formatLsn(walStart) },
      );
    }
    this.serverEnd = Math.max(this.serverEnd, Number(walEnd - progress.start));
  }

  onWalBytes(chunk: Buffer): void {
    if (this.stopping) return;
    this.chunks.push(chunk);
    this.progress.received += chunk.length;
  }

  onWalMessageEnd(): void {
    if (this.progress.received > this.endOffset && !this.stopping) {
      this.take();
      this.settle?.('endpos');
    }
  }

  onKeepalive(walEnd: bigint, _sendTime: bigint, replyRequested: boolean): void {
    this.serverEnd = Math.max(this.serverEnd, Number(walEnd - this.progress.start));
    if (replyRequested) this.replyOwed = true;
  }

  onReadEnd(): void {
    try {
      if (this.chunks.length > 0) this.take();
      if (this.replyOwed) this.answer();
    } catch (e) {
      this.onFailure(storageError('write WAL in', 'the archive', e));
    }
  }

  onServerCopyDone(): void {
    this.settle?.('server');
  }

  onFailure(error: WalkeepError): void {
    this.settle?.(this.takeRest() ?? error);
    this.o.connection.destroy();
  }

  /**
   * Takes the WAL that came in one read with the error that ends the stream. A server that lacks the
   * next segment says so right behind the end of this one, every time.
   */
  private takeRest(): WalkeepError | undefined {
    if (this.stopping || this.chunks.length === 0) return undefined;
    try {
      this.take();
      return undefined;
    } catch (e) {
      return storageError('write WAL in', 'the archive', e);
    }
  }

  private onLost(error: WalkeepError): void {
    this.lost ??= error;
    this.onFailure(error);
  }

  // --- writing -----------------------------------------------------------------------------

  private take(): void {
    const refused = this.inspect();
    const { chunks } = this;
    this.chunks = [];
    if (chunks.length > 0) this.pass(chunks);
    if (refused) throw refused;
    this.regulate();
  }

  private pass(chunks: readonly Buffer[]): void {
    const { target, progress } = this.o;
    const bulk =
      target.stage !== undefined && this.serverEnd - progress.received > target.stage.worthwhile;
    if (bulk || this.slowWrite || this.queue.isBusy || !target.writeSync) {
      const begin = progress.received - chunks.reduce((sum, c) => sum + c.length, 0);
      this.queue.push(chunks, Number(progress.start & 0xffffn) + begin, bulk);
    } else if (!this.writeSynced(chunks)) {
      const began = performance.now();
      target.writeSync(chunks);
      const took = performance.now() - began;
      if (took > SLOW_WRITE_MS) this.slowWrite = true;
      this.afterWrite();
    }
  }

  /** Both in one, where a sync would follow at once and nobody is to be told of the write before. */
  private writeSynced(chunks: readonly Uint8Array[]): boolean {
    const { o, progress } = this;
    if (!o.synchronous || this.stopping || this.syncing || this.slowSync) return false;
    if (progress.received < this.serverEnd || this.reportsEarly) return false;
    if (!o.target.writeSynced?.(chunks)) return false;
    // Since the read that brought it: nearly the same, and a commit pays for each look at the clock.
    this.synced(o.connection.lastReceivedAt);
    return true;
  }

  /** Keeps what must not be stored out of `chunks`: everything behind V, the verified position. */
  private inspect(): WalkeepError | undefined {
    const { inspector, onRefused } = this.o;
    if (!inspector) return undefined;
    const { progress, chunks } = this;
    const begin = progress.received - chunks.reduce((sum, c) => sum + c.length, 0);
    const bad = inspector.feed(chunks);
    if (!bad) return undefined;
    const sound = Math.max(begin, Number(bad.verifiedEnd - progress.start));
    const bytes = Buffer.concat(chunks);
    onRefused?.(progress.lsn(sound), bytes.subarray(sound - begin), bad.verifiedEnd, bad.error);
    this.chunks = sound > begin ? [bytes.subarray(0, sound - begin)] : [];
    progress.received = sound;
    return bad.error;
  }

  private afterWrite(): void {
    if (!this.o.synchronous || this.stopping) return;
    if (this.reportsEarly && this.progress.reportedWrite < this.progress.written) {
      this.sendStatus(false);
    }
    // More is on its way: one sync for all of it, unless that takes long.
    const behind = this.progress.written < this.serverEnd;
    if (behind && performance.now() - this.lastSync < CATCH_UP_SYNC_MS) return;
    this.flushInTime();
  }

  // --- syncing and replying ----------------------------------------------------------------

  private get reportsEarly(): boolean {
    const { writeReport } = this.o;
    return writeReport === 'write' || (writeReport === 'slow' && this.slowSync);
  }

  private flushInTime(): void {
    if (!this.pace) this.flush();
    else if (!this.syncing) this.pace.request(this.o.connection.lastReceivedAt);
  }

  private flush(): void {
    if (this.progress.flushed === this.progress.written || this.syncing || this.stopping) return;
    const began = performance.now();
    const { target } = this.o;
    // Who was told of the write goes on at once: its next WAL must not wait behind the sync.
    if (this.slowSync || this.queue.isBusy || this.reportsEarly || !target.syncSync) {
      this.syncing = this.syncInBackground(began);
      return;
    }
    target.syncSync();
    this.synced(began);
  }

  private synced(began: number): void {
    this.lastSync = performance.now();
    this.slowSync = this.lastSync - began > SLOW_SYNC_MS;
    this.sendStatus(false, this.lastSync);
  }

  private async syncInBackground(began: number): Promise<void> {
    try {
      await this.o.target.sync();
      this.lastSync = performance.now();
      this.slowSync = this.lastSync - began > SLOW_SYNC_MS / 2;
      this.syncing = undefined;
      this.sendStatus(false);
      if (!this.o.synchronous || this.stopping) return;
      this.pace?.ended(this.lastSync);
      if (this.progress.flushed < this.progress.written) this.flushInTime();
    } catch (e) {
      this.syncing = undefined;
      this.onLost(storageError('sync', 'the archive', e));
    }
  }

  /** The server asked for a reply: at its shutdown it waits for flush = sent. */
  private answer(): void {
    if (!this.stream) return;
    this.replyOwed = false;
    if (this.stopping) return;
    const behind = this.o.reportFlush && this.progress.flushed < this.progress.written;
    if (behind) {
      this.flush();
      if (!this.syncing) return;
    }
    this.sendStatus(false);
  }

  /** WAL and questions may come in one read with the server's consent, before a reply can go. */
  private catchUpReplies(): void {
    const { written, flushed, reportedWrite, reportedFlush } = this.progress;
    const news = written > Math.max(0, reportedWrite) || flushed > Math.max(0, reportedFlush);
    if (this.replyOwed) this.answer();
    else if (news && this.o.synchronous) this.sendStatus(false);
  }

  private sendStatus(replyRequested: boolean, now = performance.now()): void {
    if (!this.stream) return;
    const { progress } = this;
    const { written, flushed } = progress;
    progress.reportedWrite = written;
    progress.reportedFlush = flushed;
    this.schedule.sent(now);
    const write = progress.lsn(written);
    const flush = flushed === written ? write : progress.lsn(flushed);
    this.stream.sendStatus({
      write,
      flush: this.o.reportFlush ? flush : INVALID_LSN,
      apply: this.o.applyIsFlush ? flush : INVALID_LSN,
      replyRequested,
    });
  }

  // --- time and back-pressure --------------------------------------------------------------

  /** Called when the target's pending work moved. */
  regulate(): void {
    if (!this.stream) return;
    const { pending } = this.o.target;
    if (this.pausedSince === undefined) {
      if (!this.queue.isFull && pending <= MAX_PENDING) return;
      this.pausedSince = performance.now();
      this.stream.pause();
    } else if (this.queue.hasRoom && pending <= MAX_PENDING / 2) {
      this.pausedSince = undefined;
      this.activeSince = performance.now();
      this.stream.resume();
    }
  }

  private tick(): void {
    if (this.stopping) return;
    const now = performance.now();
    const moved = this.progress.written + this.progress.flushed;
    if (moved !== this.movedTo) {
      this.movedTo = moved;
      this.movedAt = now;
    }
    try {
      this.queue.releaseOld(now);
      if (this.pausedSince !== undefined) this.tickPaused(now);
      else this.tickActive(now);
    } catch (e) {
      this.onFailure(storageError('write WAL in', 'the archive', e));
    }
    if (this.seenByOwner !== this.progress.received) {
      this.seenByOwner = this.progress.received;
      this.o.onProgress(this.progress.lsn(this.serverEnd));
    }
  }

  private tickPaused(now: number): void {
    if (this.schedule.due(now) || this.schedule.sinceLast(now) > PAUSED_STATUS_MS) {
      this.sendStatus(false);
    }
    if (now - Math.max(this.movedAt, this.pausedSince ?? now) > STALL_LIMIT_MS) {
      this.onFailure(
        new TimeoutError(`the disk took nothing for ${STALL_LIMIT_MS / 1000} seconds`, {
          hint: 'Disconnected so that the server can shut down; look at the disk.',
        }),
      );
    }
  }

  private tickActive(now: number): void {
    if (this.schedule.due(now)) this.sendStatus(false);
    if (this.o.synchronous) this.flush();
    const { receiveTimeout, connection } = this.o;
    if (receiveTimeout === 0) return;
    const heard = Math.max(connection.lastReceivedAt, this.activeSince);
    if (now - heard > 2 * receiveTimeout) {
      this.onFailure(
        new TimeoutError(
          `nothing was received from the server for ${((now - heard) / 1000).toFixed(0)} seconds`,
          { hint: 'The server or the network may be dead.' },
        ),
      );
    } else if (now - heard > receiveTimeout && this.askedAt !== heard) {
      this.askedAt = heard;
      this.sendStatus(true);
    }
  }

  /** Resolves when no write or sync is under way. */
  private async idle(): Promise<void> {
    while (this.queue.isBusy || this.syncing) {
      await this.queue.idle();
      await this.syncing;
    }
  }
}
