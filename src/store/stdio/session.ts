import type { Readable, Writable } from 'node:stream';
import { StoreAccessError, StoreUncertainError } from '../../errors.js';
import { oneLine } from '../../text.js';
import { cut, untilAborted } from '../content.js';
import type { Content } from '../store.js';
import { Credit, FrameWriter, Inbox } from './flow.js';
import {
  FRAME,
  type Frame,
  FrameDecoder,
  fieldsOf,
  MAGIC,
  MAX_PIECE,
  VERSION,
  violation,
} from './frame.js';
import { decodeError } from './values.js';

/** What the caller's content threw; it is handed on as it is, and not tried again. */
export class SourceError {
  readonly reason: unknown;

  constructor(reason: unknown) {
    this.reason = reason;
  }
}

export interface SessionOptions {
  input: Readable;
  output: Writable;
  /** For messages. */
  place: string;
  /** The directory that is asked for. */
  directory?: string | undefined;
  /** Milliseconds without a sign of the other side, while it owes one, after which it is given up. */
  silence: number;
  /** The same until it has greeted: a log-in and a program's start are in it. That of `silence`. */
  greeting?: number;
  /** Told when nothing more is sent or read. */
  onEnd?: () => void;
  /** Why the stream ended, once that is known; undefined: nothing more than that. */
  whyEnded?: () => Promise<Error | undefined>;
}

type Fields = Record<string, unknown>;

/** One connection to a server of `walkeep store --stdio`, for any number of requests. */
export class StdioSession {
  readonly #options: SessionOptions;
  readonly #writer: FrameWriter;
  readonly #calls = new Map<number, Call>();
  #ids = 0;
  #ended: Error | undefined;
  #greeted!: { resolve(limits: Fields): void; reject(error: Error): void };
  readonly #hello: Promise<Fields>;
  #most = 1;
  readonly #queue: (() => void)[] = [];

  constructor(options: SessionOptions) {
    this.#options = options;
    this.#writer = new FrameWriter(options.output);
    this.#hello = new Promise((resolve, reject) => {
      this.#greeted = { resolve, reject };
    });
    this.#hello.catch(() => {});
    void this.#read();
  }

  /** Why it can be used no longer; undefined while it can. */
  get ended(): Error | undefined {
    return this.#ended;
  }

  /** Resolves when the other side is known to be what it should be. */
  async greet(): Promise<void> {
    const { directory, silence, greeting = silence } = this.#options;
    const patience = new Patience(greeting, (error) => this.fail(error));
    try {
      patience.expect();
      this.#options.output.write(MAGIC);
      await this.#writer.json(FRAME.hello, 0, { version: VERSION, directory }).catch(() => {});
      const { version, requests } = await this.#hello;
      if (version !== VERSION) throw violation('another version');
      this.#most = Math.max(1, Number(requests) || 1);
    } finally {
      patience.end();
    }
  }

  /**
   * Sends a request and waits for its result. @throws what the other side answered,
   * StoreUncertainError if the connection ends before, SourceError, the signal's reason
   */
  async request(
    fields: Fields,
    options: { signal: AbortSignal; content?: Content },
  ): Promise<Fields> {
    const call = await this.call(fields, options.signal);
    try {
      if (options.content) await call.upload(options.content, options.signal);
      return await call.result;
    } finally {
      call.done();
    }
  }

  /** Begins a request; the caller ends it with `done`. */
  async call(fields: Fields, signal: AbortSignal): Promise<Call> {
    while (this.#calls.size >= this.#most && !this.#ended && !signal.aborted) {
      const unread = [...this.#calls.values()].find((call) => call.isUnread);
      unread?.evict();
      await this.#turn(signal);
    }
    if (signal.aborted) {
      // A turn that was given to it is the next one's.
      this.#queue.shift()?.();
      throw signal.reason;
    }
    if (this.#ended) throw this.#ended;
    this.#ids = (this.#ids % 0xffff_ffff) + 1;
    const id = this.#ids;
    const call = new Call({
      id,
      writer: this.#writer,
      signal,
      patience: new Patience(this.#options.silence, (error) => this.fail(error)),
      // Only what the other side has ended too does not count there any more.
      onEnd: () => {
        this.#calls.delete(id);
        this.#queue.shift()?.();
      },
    });
    this.#calls.set(id, call);
    await this.#writer.json(FRAME.request, id, fields).catch(() => {});
    return call;
  }

  /** Waits until a call has ended, or until nobody waits for this one any more. */
  #turn(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        signal.removeEventListener('abort', aborted);
        resolve();
      };
      const aborted = () => {
        this.#queue.splice(this.#queue.indexOf(wake), 1);
        resolve();
      };
      signal.addEventListener('abort', aborted, { once: true });
      this.#queue.push(wake);
    });
  }

  /** Ends it: nothing more is sent, and all who wait are told. */
  fail(error: Error): void {
    if (this.#ended) return;
    this.#ended = error;
    this.#greeted.reject(error);
    for (const call of this.#calls.values()) call.end(error);
    this.#calls.clear();
    for (const wake of this.#queue.splice(0)) wake();
    this.#options.output.end();
    this.#options.input.destroy();
    this.#options.onEnd?.();
  }

  async #read(): Promise<void> {
    try {
      await this.#frames();
      // Which is told by who knows the process.
      const why = await this.#options.whyEnded?.();
      throw why ?? new StoreUncertainError(`the connection to ${this.#options.place} ended`);
    } catch (cause) {
      const broken = new StoreUncertainError(`the connection to ${this.#options.place} broke`, {
        cause,
      });
      this.fail('retryable' in (cause as object) ? (cause as Error) : broken);
    }
  }

  async #frames(): Promise<void> {
    const decoder = new FrameDecoder();
    let magic = Buffer.alloc(0);
    for await (const chunk of this.#options.input as AsyncIterable<Buffer>) {
      let rest = chunk;
      if (magic.length < MAGIC.length) {
        const missing = MAGIC.length - magic.length;
        magic = Buffer.concat([magic, rest.subarray(0, missing)]);
        rest = rest.subarray(missing);
        if (!MAGIC.subarray(0, magic.length).equals(magic)) throw this.#otherProgram(magic, rest);
      }
      for (const frame of decoder.push(rest)) this.#take(frame);
    }
  }

  /** What a shell there prints by itself, say. */
  #otherProgram(begin: Buffer, rest: Buffer): StoreAccessError {
    const text = Buffer.concat([begin, rest]).toString('latin1').slice(0, 200);
    return new StoreAccessError(`${this.#options.place} answers with something else`, {
      detail: `It says: ${oneLine(text.trim())}`,
      hint: 'What a login prints there, in .bashrc say, must not be printed without a terminal.',
    });
  }

  #take(frame: Frame): void {
    const { type, id } = frame;
    if (id === 0) {
      if (type === FRAME.hello) this.#greeted.resolve(fieldsOf(frame));
      else if (type === FRAME.error) throw decodeError(fieldsOf(frame), this.#options.place);
      else throw violation(`a frame of type ${type}`);
      return;
    }
    // Of a request that was given up meanwhile nothing is needed any more.
    this.#calls.get(id)?.take(frame, this.#options.place);
  }
}

interface CallOptions {
  id: number;
  writer: FrameWriter;
  signal: AbortSignal;
  patience: Patience;
  /** The other side is done with it. */
  onEnd: () => void;
}

/** One request. */
export class Call {
  /** Of the object that is read; undefined if the result came without. */
  readonly head: Promise<Fields | undefined>;
  readonly result: Promise<Fields>;
  /** Waits as long as it takes for whoever reads; for the other side only for a time. */
  readonly inbox: Inbox;
  readonly #options: CallOptions;
  readonly #credit = new Credit();
  readonly #settleHead: (head: Fields | undefined) => void;
  readonly #settle: { resolve(fields: Fields): void; reject(error: unknown): void };
  readonly #aborted: () => void;
  readonly #over = new AbortController();
  #answered = false;
  #hasHead = false;
  /** Given up because others were in need, before anybody read it. */
  evicted = false;

  constructor(options: CallOptions) {
    this.#options = options;
    const { id, writer, patience, signal } = options;
    let settleHead!: (head: Fields | undefined) => void;
    let settle!: { resolve(fields: Fields): void; reject(error: unknown): void };
    let failHead!: (error: unknown) => void;
    this.head = new Promise((resolve, reject) => {
      settleHead = resolve;
      failHead = reject;
    });
    this.result = new Promise((resolve, reject) => {
      settle = { resolve, reject };
    });
    this.#settleHead = settleHead;
    this.#settle = {
      resolve: settle.resolve,
      reject: (error) => {
        settle.reject(error);
        failHead(error);
      },
    };
    this.head.catch(() => {});
    this.result.catch(() => {});
    this.inbox = new Inbox((bytes) => {
      if (this.#answered) return;
      patience.expect();
      void writer.json(FRAME.credit, id, { bytes }).catch(() => {});
    });
    this.#aborted = () => {
      this.fail(signal.reason);
      this.#cancel();
    };
    signal.addEventListener('abort', this.#aborted, { once: true });
    patience.expect();
  }

  /** A body that came, and that nobody has begun to read. */
  get isUnread(): boolean {
    return this.#hasHead && !this.inbox.begun && !this.#answered;
  }

  evict(): void {
    this.evicted = true;
    this.done();
  }

  /** Sends the content, as far as it is wanted: the result says what came of it. @throws SourceError */
  async upload(content: Content, signal: AbortSignal): Promise<void> {
    const { id, writer, patience } = this.#options;
    // Whatever time the caller takes is his own.
    patience.end();
    try {
      for await (const whole of readSource(content, AbortSignal.any([signal, this.#over.signal]))) {
        for (const piece of cut(whole, MAX_PIECE)) {
          // The other side owes credit now, or the answer.
          patience.expect();
          await this.#credit.take(piece.length);
          await writer.write(FRAME.data, id, piece);
          // Nobody but the caller is waited for.
          patience.end();
        }
      }
      patience.expect();
      await writer.write(FRAME.end, id);
    } catch (error) {
      if (error instanceof SourceError && !this.#answered) throw error;
      if (this.#answered) patience.end();
    }
  }

  take(frame: Frame, place: string): void {
    const { patience, onEnd } = this.#options;
    const { type } = frame;
    if (type === FRAME.result || type === FRAME.error) {
      const fields = fieldsOf(frame);
      patience.end();
      onEnd();
      if (type === FRAME.error) this.fail(decodeError(fields, place));
      else this.#succeed(fields);
    } else if (type !== FRAME.credit && type !== FRAME.head && type !== FRAME.data) {
      throw violation(`a frame of type ${type}`);
    } else if (this.#answered) {
      // It was given up while this was on its way.
    } else if (type === FRAME.credit) {
      this.#credit.give(Number(fieldsOf(frame).bytes) || 0);
    } else if (type === FRAME.head) {
      patience.expect();
      this.#hasHead = true;
      this.#settleHead(fieldsOf(frame));
    } else {
      // Until the reader has taken some of it the other side may have used up its credit.
      patience.end();
      this.inbox.push(frame.payload);
    }
  }

  /** The connection is gone. */
  end(error: Error): void {
    this.fail(error);
    this.#options.patience.end();
  }

  fail(error: unknown): void {
    if (this.#answered) return;
    this.#answer(error);
    this.#settle.reject(error);
    this.inbox.fail(error);
  }

  /** Nothing more of it is wanted. */
  done(): void {
    if (this.#answered) return;
    this.#answer(new StoreUncertainError('it was given up'));
    this.#cancel();
  }

  #succeed(fields: Fields): void {
    if (this.#answered) return;
    this.#answer(new StoreUncertainError('it was answered'));
    this.#settleHead(undefined);
    this.#settle.resolve(fields);
    this.inbox.end();
  }

  #answer(error: unknown): void {
    this.#answered = true;
    this.#options.patience.end();
    this.#options.signal.removeEventListener('abort', this.#aborted);
    this.#credit.fail(error);
    this.#over.abort(error);
  }

  /** The other side still owes its end. */
  #cancel(): void {
    this.#options.patience.expect();
    void this.#options.writer.write(FRAME.cancel, this.#options.id).catch(() => {});
  }
}

/** Tells what the caller's content throws from all else. */
async function* readSource(content: Content, signal: AbortSignal) {
  try {
    yield* untilAborted(content.open(), signal);
  } catch (error) {
    throw new SourceError(error);
  }
}

/** Waits for a sign of the other side. */
class Patience {
  readonly #ms: number;
  readonly #over: (error: Error) => void;
  #timer: NodeJS.Timeout | undefined;

  constructor(ms: number, over: (error: Error) => void) {
    this.#ms = ms;
    this.#over = over;
  }

  /** From now on. */
  expect(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(
      () => this.#over(new StoreUncertainError(`no answer for ${this.#ms / 1000} s`)),
      this.#ms,
    );
  }

  end(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}
