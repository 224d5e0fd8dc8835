import { ProtocolError, type WalkeepError } from '../errors.js';
import type { BackendMessage } from '../protocol/backend-message.js';
import type { CopyBothHandler, FrameReader } from '../protocol/frame-reader.js';
import { COPY_DONE } from '../protocol/frontend-message.js';
import { parseStreamEnd, type StreamEnd } from '../protocol/replication.js';
import { toServerError } from '../protocol/server-error.js';
import {
  encodeStatus,
  postgresClock,
  STATUS_FRAME_LENGTH,
  type StandbyStatus,
} from '../protocol/status-reply.js';
import { type Operation, ResultBuilder } from './operation.js';
import { MAX_UNSENT, type Wire } from './wire.js';

/** A running COPY BOTH stream of WAL. */
export interface WalStream {
  /**
   * Reports positions to the server. Dropped after the stream has ended, and while the server does
   * not read what we sent before: the next reply says more.
   */
  sendStatus(status: StandbyStatus): void;
  /** Stops reading; what was already read is still delivered. Keepalives stop as well. */
  pause(): void;
  resume(): void;
  /**
   * Ends the stream: sends CopyDone (once), discards WAL that is still under way and waits for the
   * server's end. Rejects if the connection breaks before that. No time limit of its own.
   */
  finish(): Promise<StreamEnd>;
}

/** The texts of pg_receivewal (receivelog.c) around the server's own. */
const COMMAND_CONTEXT = 'could not send replication command "START_REPLICATION": ';
const STREAM_CONTEXT = 'unexpected termination of replication stream: ';

const DISCARD: CopyBothHandler = {
  onWalHeader() {},
  onWalBytes() {},
  onWalMessageEnd() {},
  onKeepalive() {},
  onReadEnd() {},
  onServerCopyDone() {},
  onFailure() {},
};

/** START_REPLICATION from the command to ReadyForQuery. */
export class StreamOperation implements Operation, WalStream {
  /** The stream, or its end if the server had nothing to stream. */
  readonly started: Promise<WalStream | StreamEnd>;
  private resolveStart!: (value: WalStream | StreamEnd) => void;
  private rejectStart!: (error: unknown) => void;
  private readonly wire: Wire;
  private readonly reader: FrameReader;
  private readonly handler: CopyBothHandler;
  private readonly onReady: () => void;
  private readonly builder = new ResultBuilder();
  private readonly statusFrame = Buffer.alloc(STATUS_FRAME_LENGTH);
  private readonly statusView: DataView;

  private streaming = false;
  /** Behind CopyDone, CommandComplete or an error: a result may follow, and no more WAL. */
  private answered = false;
  /** The handler was told of the end: by onServerCopyDone, or by onFailure. */
  private endTold = false;
  /** CommandComplete has come: a closed connection is no failure any more. */
  private complete = false;
  private error: WalkeepError | undefined;
  private end: StreamEnd | undefined;
  private finishing: Promise<StreamEnd> | undefined;
  private settleFinish: (() => void) | undefined;
  private readonly over: Promise<void>;
  private settleOver!: () => void;

  constructor(wire: Wire, reader: FrameReader, handler: CopyBothHandler, onReady: () => void) {
    this.wire = wire;
    this.reader = reader;
    this.handler = handler;
    this.onReady = onReady;
    this.statusView = new DataView(
      this.statusFrame.buffer,
      this.statusFrame.byteOffset,
      STATUS_FRAME_LENGTH,
    );
    this.over = new Promise((resolve) => {
      this.settleOver = resolve;
    });
    this.started = new Promise((resolve, reject) => {
      this.resolveStart = resolve;
      this.rejectStart = reject;
    });
  }

  get ending(): Promise<void> | undefined {
    return this.error && this.over;
  }

  onMessage(message: BackendMessage): void {
    switch (message.name) {
      case 'copyBothResponse':
        if (this.streaming || this.answered) throw unexpected(message);
        this.streaming = true;
        this.reader.enterCopyBoth(this.handler);
        this.resolveStart(this);
        return;
      case 'copyDone':
        if (!this.streaming) throw unexpected(message);
        this.answered = true;
        this.tellServerDone();
        return;
      case 'commandComplete':
        this.answered = true;
        this.complete = true;
        this.builder.add(message);
        // A server that shuts down sends CommandComplete without CopyDone (WalSndDone, walsender.c).
        this.tellServerDone();
        return;
      case 'error':
        this.answered = true;
        this.onServerError(message);
        return;
      case 'readyForQuery':
        // Taken for the end, nobody would be left to hear of the failure that follows.
        if (this.streaming && !this.answered) throw unexpected(message);
        this.onServerReady();
        return;
      default:
        if (this.streaming && !this.answered) throw unexpected(message);
        this.answered = true;
        if (!this.builder.add(message)) throw unexpected(message);
    }
  }

  onClosed(error: WalkeepError, local: boolean): void {
    this.settleOver();
    if (this.complete && !this.error) this.readEnd();
    else this.error ??= error;
    if (!this.streaming) {
      if (this.end) this.resolveStart(this.end);
      else this.rejectStart(this.error);
    } else {
      this.settleFinish?.();
      if (this.error && !local) this.tellFailure(this.error);
    }
  }

  sendStatus(status: StandbyStatus): void {
    if (!this.streaming || this.finishing || this.complete || this.error) return;
    if (this.wire.unsent > MAX_UNSENT) return;
    encodeStatus(this.statusView, status, postgresClock());
    this.wire.writeNow(this.statusFrame);
  }

  pause(): void {
    if (!this.finishing) this.wire.pause();
  }

  resume(): void {
    this.wire.resume();
  }

  finish(): Promise<StreamEnd> {
    this.finishing ??= new Promise((resolve, reject) => {
      this.settleFinish = () => {
        if (this.end) resolve(this.end);
        else reject(this.error);
      };
      if (this.end || this.error) {
        this.settleFinish();
        return;
      }
      this.endTold = true;
      this.reader.replaceHandler(DISCARD);
      if (!this.complete) this.wire.write(COPY_DONE);
      this.wire.resume();
    });
    return this.finishing;
  }

  private onServerError(message: Extract<BackendMessage, { name: 'error' | 'notice' }>): void {
    const context = this.streaming ? STREAM_CONTEXT : COMMAND_CONTEXT;
    this.error ??= toServerError(message.notice, context);
    if (!this.streaming) return;
    this.settleFinish?.();
    this.tellFailure(this.error);
  }

  private onServerReady(): void {
    if (!this.error) this.readEnd();
    this.onReady();
    this.settleOver();
    if (!this.streaming) {
      if (this.end) this.resolveStart(this.end);
      else this.rejectStart(this.error);
    } else if (this.end) this.settleFinish?.();
  }

  /** Never throws: nobody above would be left to tell the owner of the stream. */
  private readEnd(): void {
    try {
      this.end ??= parseStreamEnd(this.builder.build());
    } catch (e) {
      this.error = e as WalkeepError;
      this.settleFinish?.();
    }
  }

  private tellServerDone(): void {
    if (!this.streaming || this.endTold) return;
    this.handler.onServerCopyDone();
    // Only now: if the handler threw, it is told of the failure instead.
    this.endTold = true;
  }

  private tellFailure(error: WalkeepError): void {
    if (this.endTold) return;
    this.endTold = true;
    this.handler.onFailure(error);
  }
}

function unexpected({ name }: BackendMessage): ProtocolError {
  return new ProtocolError(`unexpected message ${name} in a replication stream`);
}
