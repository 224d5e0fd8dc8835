import { InternalError, ProtocolError, WalkeepError } from '../errors.js';
import { type BackendMessage, decodeFrame, isBackendType, printType } from './backend-message.js';

/**
 * Takes the messages of COPY BOTH (streaming replication). Called synchronously while a socket
 * read is being consumed; an exception ends the connection and is not delivered twice.
 */
export interface CopyBothHandler {
  /**
   * An XLogData message begins: `length` payload bytes at LSN `walStart`. `walEnd` is the server's
   * WAL end when it sent it, `sendTime` microseconds since 2000-01-01.
   */
  onWalHeader(walStart: bigint, walEnd: bigint, sendTime: bigint, length: number): void;
  /** Part of the payload. The memory is used again: valid only during the call. */
  onWalBytes(chunk: Buffer): void;
  /** All `length` bytes were handed on. */
  onWalMessageEnd(): void;
  onKeepalive(walEnd: bigint, sendTime: bigint, replyRequested: boolean): void;
  /** All bytes of one socket read were consumed. */
  onReadEnd(): void;
  /** The server ended the stream (end of timeline, or shutdown). */
  onServerCopyDone(): void;
  /** The stream broke: error of the server, of the connection or of the protocol. Called once. */
  onFailure(error: WalkeepError): void;
}

/** Takes the CopyData messages of COPY OUT, as `CopyBothHandler` takes those of COPY BOTH. */
export interface CopyOutHandler {
  /** A CopyData begins: `length` bytes follow. */
  onCopyHeader(length: number): void;
  /** Part of it. The memory is used again: valid only during the call. */
  onCopyBytes(chunk: Buffer): void;
  /** All `length` bytes were handed on. */
  onCopyEnd(): void;
}

/** Takes what is not part of a COPY stream. */
export interface FrameSink {
  /** A whole message; the memory behind it is its own. */
  onMessage(message: BackendMessage): void;
  /** The body of a CopyData outside COPY, in its own memory. */
  onCopyData(chunk: Buffer): void;
  /** The bytes are no protocol, or a handler threw. Nothing is delivered afterwards. */
  onReaderFailure(error: WalkeepError): void;
}

/** Largest frame before authentication: a stranger must not make us allocate. */
export const MAX_FRAME_BEFORE_AUTH = 64 * 1024;
/** Largest gathered frame after it, bytes. */
export const MAX_FRAME = 16 * 1024 * 1024;
/** Largest CopyData of a COPY; never gathered. The walsender sends at most 128 kB (MAX_SEND_SIZE). */
export const MAX_WAL_FRAME = 64 * 1024 * 1024;

const COPY_DATA = 0x64; // d
const WAL_DATA = 0x77; // w
const KEEPALIVE = 0x6b; // k

/** Type byte and length. */
const FRAME_HEADER = 5;
/** 'w', walStart, walEnd, sendTime (protocol.sgml, XLogData). */
const WAL_HEADER = 25;
/** 'k', walEnd, sendTime, reply flag (protocol.sgml, Primary keepalive message). */
const KEEPALIVE_BODY = 18;

const State = { header: 0, body: 1, wal: 2, skip: 3, dead: 4, copy: 5 } as const;
type State = (typeof State)[keyof typeof State];

/**
 * Splits the server's byte stream into messages. The payload of COPY is passed through as views of
 * the read buffer; everything else is gathered in memory of its own with a bounded length.
 */
export class FrameReader {
  /** Limit for gathered frames, bytes including the length field. */
  maxFrame = MAX_FRAME_BEFORE_AUTH;

  private readonly sink: FrameSink;
  private handler: CopyBothHandler | undefined;
  private copyOut: CopyOutHandler | undefined;
  /** Handler to tell the end of this read, also when it was removed during the read. */
  private readEndHandler: CopyBothHandler | undefined;
  private state: State = State.header;
  /** Frame and inner header, also when cut across reads. */
  private readonly stash = Buffer.alloc(64);
  private readonly stashView = new DataView(this.stash.buffer, this.stash.byteOffset, 64);
  private stashed = 0;
  private needed = FRAME_HEADER;
  /** Bytes of the payload or of the skipped rest that are still to come. */
  private remaining = 0;
  private frame: Buffer = this.stash;
  private frameFilled = 0;

  constructor(sink: FrameSink) {
    this.sink = sink;
  }

  /** From now on CopyData is WAL and keepalives for `handler`. */
  enterCopyBoth(handler: CopyBothHandler): void {
    this.handler = handler;
    this.readEndHandler = handler;
  }

  /** From now on CopyData is for `handler`, until the server ends this COPY OUT. */
  enterCopyOut(handler: CopyOutHandler): void {
    this.copyOut = handler;
  }

  /** Hands the rest of a running COPY BOTH to another handler; without one nothing changes. */
  replaceHandler(handler: CopyBothHandler): void {
    if (this.handler) this.enterCopyBoth(handler);
  }

  /** Ends delivery: later bytes are dropped. */
  destroy(): void {
    this.state = State.dead;
    this.handler = undefined;
    this.copyOut = undefined;
  }

  /** Consumes one socket read, `chunk[0, end)`, completely. Never throws. */
  push(chunk: Buffer, end = chunk.length): void {
    if (this.state === State.dead) return;
    this.readEndHandler = this.handler;
    try {
      this.consume(chunk, end);
      if (!this.isDead) this.readEndHandler?.onReadEnd();
    } catch (error) {
      this.destroy();
      this.sink.onReaderFailure(asWalkeepError(error));
    }
  }

  private get isDead(): boolean {
    return this.state === State.dead;
  }

  private consume(chunk: Buffer, end: number): void {
    let pos = 0;
    while (pos < end) {
      switch (this.state) {
        case State.header:
          pos = this.stashFrom(chunk, pos, end);
          if (this.stashed === this.needed) this.header();
          break;
        case State.wal: {
          const take = Math.min(this.remaining, end - pos);
          this.remaining -= take;
          this.handler?.onWalBytes(chunk.subarray(pos, pos + take));
          pos += take;
          if (this.remaining === 0 && !this.isDead) {
            this.nextFrame();
            this.handler?.onWalMessageEnd();
          }
          break;
        }
        case State.copy: {
          const take = Math.min(this.remaining, end - pos);
          this.remaining -= take;
          this.copyOut?.onCopyBytes(chunk.subarray(pos, pos + take));
          pos += take;
          if (this.remaining === 0 && !this.isDead) this.endCopyData();
          break;
        }
        case State.body: {
          const take = Math.min(this.frame.length - this.frameFilled, end - pos);
          chunk.copy(this.frame, this.frameFilled, pos, pos + take);
          this.frameFilled += take;
          pos += take;
          if (this.frameFilled === this.frame.length) this.deliver();
          break;
        }
        case State.skip: {
          const take = Math.min(this.remaining, end - pos);
          this.remaining -= take;
          pos += take;
          if (this.remaining === 0) this.nextFrame();
          break;
        }
        case State.dead:
          return;
      }
    }
  }

  private endCopyData(): void {
    this.nextFrame();
    this.copyOut?.onCopyEnd();
  }

  /** Up to 25 bytes: a loop beats a call of copy(). Returns the new position in `chunk`. */
  private stashFrom(chunk: Buffer, from: number, end: number): number {
    const { stash, stashed } = this;
    const take = Math.min(this.needed - stashed, end - from);
    for (let i = 0; i < take; i++) stash[stashed + i] = chunk[from + i] as number;
    this.stashed = stashed + take;
    return from + take;
  }

  private nextFrame(): void {
    this.state = State.header;
    this.stashed = 0;
    this.needed = FRAME_HEADER;
  }

  /** The stash holds `needed` bytes: a frame header, or that plus (a part of) the inner header. */
  private header(): void {
    const type = this.stash[0] as number;
    const length = this.stashView.getUint32(1);
    const streamed = type === COPY_DATA && this.handler !== undefined;
    const copyOut = type === COPY_DATA ? this.copyOut : undefined;
    if (this.stashed > FRAME_HEADER) {
      this.innerHeader(length);
      return;
    }
    if (!isBackendType(type)) {
      throw new ProtocolError(`unexpected message type ${printType(type)} from server`, {
        hint: 'Is this the port of a PostgreSQL server?',
      });
    }
    const limit = streamed || copyOut ? MAX_WAL_FRAME : this.maxFrame;
    if (length < 4 || length > limit) {
      throw new ProtocolError(
        `invalid length ${length} of message type ${printType(type)} from server`,
        { expected: `4 to ${limit}`, actual: String(length) },
      );
    }
    if (streamed) {
      if (length < 5) throw new ProtocolError(`streaming header too small: ${length - 4}`);
      this.needed = FRAME_HEADER + 1;
      return;
    }
    if (copyOut) {
      this.remaining = length - 4;
      this.state = State.copy;
      copyOut.onCopyHeader(this.remaining);
      if (this.remaining === 0 && !this.isDead) this.endCopyData();
      return;
    }
    this.frame = Buffer.allocUnsafe(1 + length);
    this.stash.copy(this.frame, 0, 0, FRAME_HEADER);
    this.frameFilled = FRAME_HEADER;
    if (length === 4) this.deliver();
    else this.state = State.body;
  }

  private innerHeader(length: number): void {
    const body = length - 4;
    const kind = this.stash[FRAME_HEADER] as number;
    if (this.stashed === FRAME_HEADER + 1) {
      const size = kind === WAL_DATA ? WAL_HEADER : KEEPALIVE_BODY;
      if (kind !== WAL_DATA && kind !== KEEPALIVE) {
        throw new ProtocolError(`unrecognized streaming header: ${printType(kind)}`);
      }
      if (body < size) throw new ProtocolError(`streaming header too small: ${body}`);
      this.needed = FRAME_HEADER + size;
      return;
    }
    const view = this.stashView;
    const handler = this.handler;
    if (kind === WAL_DATA) {
      const payload = body - WAL_HEADER;
      this.remaining = payload;
      this.state = State.wal;
      handler?.onWalHeader(
        view.getBigUint64(6),
        view.getBigUint64(14),
        view.getBigInt64(22),
        payload,
      );
      if (payload === 0 && !this.isDead) {
        this.nextFrame();
        handler?.onWalMessageEnd();
      }
      return;
    }
    // A later protocol may append fields to a keepalive; pg_receivewal ignores them as well.
    this.remaining = body - KEEPALIVE_BODY;
    if (this.remaining > 0) this.state = State.skip;
    else this.nextFrame();
    handler?.onKeepalive(view.getBigUint64(6), view.getBigInt64(14), this.stash[22] !== 0);
  }

  private deliver(): void {
    const frame = this.frame;
    this.frame = this.stash;
    this.nextFrame();
    if (frame[0] === COPY_DATA) {
      this.sink.onCopyData(frame.subarray(FRAME_HEADER));
      return;
    }
    const message = decodeFrame(frame);
    // After any of these the server is out of COPY and sends no more of it.
    if (
      message.name === 'copyDone' ||
      message.name === 'error' ||
      message.name === 'commandComplete'
    ) {
      this.handler = undefined;
      this.copyOut = undefined;
    }
    this.sink.onMessage(message);
  }
}

function asWalkeepError(error: unknown): WalkeepError {
  if (error instanceof WalkeepError) return error;
  const text = error instanceof Error ? error.message : String(error);
  return new InternalError(`a message handler failed: ${text}`, { cause: error });
}
