import { performance } from 'node:perf_hooks';
import type { ReplicationConnection } from '../connection/connection.js';
import type { WalStream } from '../connection/wal-stream.js';
import { StreamPositionError, TimeoutError, type WalkeepError } from '../errors.js';
import { storageError } from '../files/durable.js';
import { formatLsn, INVALID_LSN, type Lsn } from '../lsn.js';
import type { CopyBothHandler } from '../protocol/frame-reader.js';
import type { StreamEnd } from '../protocol/replication.js';
import type { WalInspector } from './inspector.js';
import type { TargetListener, WalTarget } from './target/wal-target.js';
import type { Phase } from './watchdog.js';

export interface StreamOptions {
  connection: ReplicationConnection;
  slot?: string;
  timeline: number;
  endLsn?: Lsn;
  /** Its positions tell where the stream starts. */
  target: WalTarget;
  /** Checks WAL before it is written; absent: nothing is checked. */
  inspector?: WalInspector;
  /** Gets what the inspector refused, from the given LSN on, before the stream fails. */
  onRefused?: (lsn: Lsn, bytes: Buffer, verifiedEnd: Lsn, error: WalkeepError) => void;
  /** The target syncs whenever new WAL is written: that is told at once. */
  synchronous: boolean;
  /** Report flush positions: with a slot, or synchronous. Otherwise flush is 0, "unknown". */
  reportFlush: boolean;
  /** Report apply = flush, so that remote_apply commits are confirmed though nothing is replayed. */
  applyIsFlush: boolean;
  /** Milliseconds; 0: replies only when asked. */
  statusInterval: number;
  /** Milliseconds of silence before the server is asked; it is given up at twice that. 0: never. */
  receiveTimeout: number;
  /** Asked after this silence already, and given up no sooner. Absent: as above. */
  probeAfter?: number;
  /** True while another server is seen to go on: then little silence is borne. */
  outrun?: () => boolean;
  /** What the target waits for, if that is not the disk. */
  waitsFor?: () => string | undefined;
  /** Called at most four times a second when more was received or synced, or the server has more. */
  onProgress: (received: Lsn, serverEnd: Lsn) => void;
}

/** How a stream ended without an error; `lsn` is the last position received. */
export type StreamOutcome =
  | { kind: 'ended'; end: StreamEnd; lsn: Lsn }
  | { kind: 'stopped'; reason: 'endpos' | 'signal'; lsn: Lsn };

/** The status interval while paused, also with `-s 0`: any reply resets wal_sender_timeout. */
const PAUSED_STATUS_MS = 10_000;
/** A paused stream that gets nothing to disk for so long is given up: it hangs a shutdown. */
const STALL_LIMIT_MS = 60_000;
const TICK_MS = 250;
/** The most silence before a server is asked that was outrun: it answers, or is gone. */
const OUTRUN_SILENCE_MS = 2000;

/**
 * One COPY BOTH stream on one timeline: takes XLogData, has it checked, hands it to the target, and
 * tells the server what the target has.
 *
 * Invariant: received ≥ what the target accepted; nothing is told that the target does not have.
 */
export class StreamSession implements CopyBothHandler, TargetListener {
  private readonly o: StreamOptions;
  private readonly target: WalTarget;
  private stream: WalStream | undefined;
  private settle: ((outcome: 'endpos' | 'signal' | 'server' | WalkeepError) => void) | undefined;
  private stopping = false;
  /** Why what was received last is not stored, though the stream was to end without an error. */
  private lost: WalkeepError | undefined;
  /** Views into the read buffer; valid until the read's callback returns. */
  private chunks: Buffer[] = [];
  /** Bytes taken from the socket, less what was refused. */
  private received = 0;
  /** Stream offset of the end of WAL that the server has, as of its last message. */
  private serverEnd = 0;
  private readonly endOffset: number;

  /** What the last status reply said; -1 before the first. */
  private reportedWrite = -1;
  private reportedFlush = -1;
  private repliedAt = Number.NEGATIVE_INFINITY;
  private replyOwed = false;

  private pausedSince: number | undefined;
  private movedAt = 0;
  private movedTo = 0;
  private activeSince = 0;
  /** Up to when the server was heard when it was asked, and when that was. */
  private askedAt = -1;
  private askedSince = 0;
  private seenByOwner = -1;

  constructor(options: StreamOptions) {
    this.o = options;
    this.target = options.target;
    const { endLsn } = options;
    const { start } = this.target.positions;
    this.endOffset = endLsn === undefined ? Number.POSITIVE_INFINITY : Number(endLsn - start);
    this.target.start(this);
  }

  /**
   * Streams until the end position, the signal, or the server's end of the timeline. The target
   * is closed in every case but an error, where that is the caller's business.
   *
   * @param onPhase told when the server agreed to stream, and when its end is waited for
   */
  async run(signal: AbortSignal, onPhase: (phase: Phase) => void): Promise<StreamOutcome> {
    const { connection, slot, timeline } = this.o;
    const { target } = this;
    const { start } = target.positions;
    const result = new Promise<'endpos' | 'signal' | 'server'>((resolve, reject) => {
      this.settle = (how) => {
        this.settle = undefined;
        this.stop();
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
        { ...(slot === undefined ? {} : { slot }), startLsn: start, timeline },
        this,
      );
      if ('kind' in started) {
        await target.close();
        onPhase('ending');
        return { kind: 'ended', end: started, lsn: start };
      }
      this.stream = started;
      onPhase('stream');
      this.activeSince = this.movedAt = performance.now();
      timer = setInterval(() => this.tick(), TICK_MS);
      this.tick();
      this.catchUpReplies();
      if (signal.aborted) onAbort();
      const how = await result;
      await target.idle();
      if (this.lost) throw this.lost;
      await target.close();
      onPhase('ending');
      this.sendStatus(false);
      const lsn = this.lsn(this.received);
      const end = await started.finish();
      return how === 'server' ? { kind: 'ended', end, lsn } : { kind: 'stopped', reason: how, lsn };
    } finally {
      clearInterval(timer);
      signal.removeEventListener('abort', onAbort);
      this.stop();
      await target.idle().catch(() => undefined);
    }
  }

  private stop(): void {
    this.stopping = true;
    this.target.stop();
  }

  private lsn(offset: number): Lsn {
    return this.target.positions.lsn(offset);
  }

  // --- CopyBothHandler ---------------------------------------------------------------------

  onWalHeader(walStart: bigint, walEnd: bigint): void {
    if (this.stopping) return;
    const { start } = this.target.positions;
    if (Number(walStart - start) !== this.received) {
      const expected = this.lsn(this.received);
      const kind = walStart > expected ? 'a gap' : 'a step back';
      throw new StreamPositionError(
        `${kind} in the stream: got WAL at ${formatLsn(walStart)}, expected ${formatLsn(expected)}`,
        { lsn: expected, expected: formatLsn(expected), actual: formatLsn(walStart) },
      );
    }
    this.serverEnd = Math.max(this.serverEnd, Number(walEnd - start));
  }

  onWalBytes(chunk: Buffer): void {
    if (this.stopping) return;
    this.chunks.push(chunk);
    this.received += chunk.length;
  }

  onWalMessageEnd(): void {
    if (this.received > this.endOffset && !this.stopping) {
      this.take();
      this.settle?.('endpos');
    }
  }

  onKeepalive(walEnd: bigint, _sendTime: bigint, replyRequested: boolean): void {
    this.serverEnd = Math.max(this.serverEnd, Number(walEnd - this.target.positions.start));
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

  // --- TargetListener ----------------------------------------------------------------------

  onNews(what: 'written' | 'flushed', now: number): void {
    if (what === 'flushed' || this.reportedWrite < this.target.positions.written) {
      this.sendStatus(false, now);
    }
  }

  onRoom(): void {
    this.regulate();
  }

  onLost(error: WalkeepError): void {
    this.lost ??= error;
    this.onFailure(error);
  }

  // --- WAL ---------------------------------------------------------------------------------

  private take(): void {
    const refused = this.inspect();
    const { chunks } = this;
    this.chunks = [];
    if (chunks.length > 0) {
      this.target.accept(chunks, this.serverEnd, this.o.connection.lastReceivedAt);
    }
    if (refused) throw refused;
    this.regulate();
  }

  /** Keeps what must not be stored out of `chunks`: everything behind V, the verified position. */
  private inspect(): WalkeepError | undefined {
    const { inspector, onRefused } = this.o;
    if (!inspector) return undefined;
    const { chunks } = this;
    const begin = this.received - chunks.reduce((sum, c) => sum + c.length, 0);
    const bad = inspector.feed(chunks);
    if (!bad) return undefined;
    const sound = Math.max(begin, Number(bad.verifiedEnd - this.target.positions.start));
    const bytes = Buffer.concat(chunks);
    onRefused?.(this.lsn(sound), bytes.subarray(sound - begin), bad.verifiedEnd, bad.error);
    this.chunks = sound > begin ? [bytes.subarray(0, sound - begin)] : [];
    this.received = sound;
    return bad.error;
  }

  // --- replying ----------------------------------------------------------------------------

  /** The server asked for a reply: at its shutdown it waits for flush = sent. */
  private answer(): void {
    if (!this.stream) return;
    this.replyOwed = false;
    if (this.stopping) return;
    const { written, flushed } = this.target.positions;
    const behind = this.o.reportFlush && flushed < written;
    // What was synced at once was told at once.
    if (behind && this.target.flush()) return;
    this.sendStatus(false);
  }

  /** WAL and questions may come in one read with the server's consent, before a reply can go. */
  private catchUpReplies(): void {
    const { written, flushed } = this.target.positions;
    const { reportedWrite, reportedFlush } = this;
    const news = written > Math.max(0, reportedWrite) || flushed > Math.max(0, reportedFlush);
    if (this.replyOwed) this.answer();
    else if (news && this.o.synchronous) this.sendStatus(false);
  }

  /** An unasked one: at the very start, and whenever the interval has passed since the last. */
  private isReplyDue(now: number): boolean {
    const { statusInterval } = this.o;
    return statusInterval > 0 && now - this.repliedAt >= statusInterval;
  }

  private sendStatus(replyRequested: boolean, now = performance.now()): void {
    if (!this.stream) return;
    const { written, flushed } = this.target.positions;
    this.reportedWrite = written;
    this.reportedFlush = flushed;
    this.repliedAt = now;
    const write = this.lsn(written);
    const flush = flushed === written ? write : this.lsn(flushed);
    this.stream.sendStatus({
      write,
      flush: this.o.reportFlush ? flush : INVALID_LSN,
      apply: this.o.applyIsFlush ? flush : INVALID_LSN,
      replyRequested,
    });
  }

  // --- time and back-pressure --------------------------------------------------------------

  private regulate(): void {
    if (!this.stream) return;
    const { hasRoom } = this.target;
    if (hasRoom === (this.pausedSince === undefined)) return;
    if (hasRoom) {
      this.pausedSince = undefined;
      this.activeSince = performance.now();
      this.stream.resume();
    } else {
      this.pausedSince = performance.now();
      this.stream.pause();
    }
  }

  private tick(): void {
    if (this.stopping) return;
    const now = performance.now();
    const { written, flushed } = this.target.positions;
    const moved = written + flushed;
    if (moved !== this.movedTo) {
      this.movedTo = moved;
      this.movedAt = now;
    }
    try {
      if (this.pausedSince !== undefined) this.tickPaused(now);
      else this.tickActive(now);
    } catch (e) {
      this.onFailure(storageError('write WAL in', 'the archive', e));
    }
    // None of them goes back: their sum tells that one moved.
    const moves = this.received + this.target.positions.flushed + this.serverEnd;
    if (this.seenByOwner !== moves) {
      this.seenByOwner = moves;
      this.o.onProgress(this.lsn(this.received), this.lsn(this.serverEnd));
    }
  }

  private tickPaused(now: number): void {
    this.target.tick(now, false);
    if (this.isReplyDue(now) || now - this.repliedAt > PAUSED_STATUS_MS) {
      this.sendStatus(false);
    }
    if (now - Math.max(this.movedAt, this.pausedSince ?? now) > STALL_LIMIT_MS) {
      const other = this.o.waitsFor?.();
      this.onFailure(
        new TimeoutError(
          `${other ?? 'the disk'} took nothing for ${STALL_LIMIT_MS / 1000} seconds`,
          {
            hint: `Disconnected so that the server can shut down; ${other ? 'it goes on when that has come to an end' : 'look at the disk'}.`,
          },
        ),
      );
    }
  }

  private tickActive(now: number): void {
    if (this.isReplyDue(now)) this.sendStatus(false);
    this.target.tick(now, true);
    const { connection, outrun } = this.o;
    if (this.o.receiveTimeout === 0) return;
    const most = outrun?.() ? OUTRUN_SILENCE_MS : Number.POSITIVE_INFINITY;
    const receiveTimeout = Math.min(this.o.receiveTimeout, most);
    const heard = Math.max(connection.lastReceivedAt, this.activeSince);
    const silence = Math.min(receiveTimeout, this.o.probeAfter ?? receiveTimeout);
    if (now - heard <= silence) return;
    if (this.askedAt !== heard) {
      this.askedAt = heard;
      this.askedSince = now;
      this.sendStatus(true);
    } else if (now - this.askedSince > 2 * receiveTimeout - silence) {
      this.onFailure(
        new TimeoutError(
          `nothing was received from the server for ${((now - heard) / 1000).toFixed(0)} seconds`,
          { hint: 'The server or the network may be dead.' },
        ),
      );
    }
  }
}
