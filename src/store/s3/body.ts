import type { IncomingMessage } from 'node:http';
import { StoreUncertainError } from '../../errors.js';
import { cut, provenBody, provenContent } from '../content.js';
import type { Content } from '../store.js';
import { failureOf } from './failures.js';
import { Deadline, type Patience, timeFor } from './tries.js';

/** Bytes that are encrypted and handed on at once: TLS keeps a second copy of what it was given. */
const MOST_AT_ONCE = 256 * 1024;

/**
 * The bytes to be sent. The last piece is held back until all are proven: a service that checks
 * nothing cannot take others for the object.
 */
export async function* sendable(
  key: string,
  content: Content,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void, void> {
  let held: Uint8Array | undefined;
  async function* open(): AsyncGenerator<Uint8Array, void, void> {
    for await (const piece of content.open()) yield* cut(piece, MOST_AT_ONCE);
  }
  for await (const piece of provenContent(key, { ...content, open }, signal)) {
    if (held) yield held;
    held = piece;
  }
  if (held) yield held;
}

export interface Receiving {
  key: string;
  host: string;
  /** Bytes that are to come. */
  length: number;
  sha256: string | undefined;
  patience: Patience;
  signals: readonly (AbortSignal | undefined)[];
}

/**
 * The bytes that come, proven at the end. The time that is spent waiting for them is limited, not
 * the time that the reader takes.
 */
export function receiving(message: IncomingMessage, options: Receiving): AsyncIterable<Uint8Array> {
  const { key, host, length, sha256, patience, signals } = options;
  let left = timeFor(length, patience);
  const late = () => new StoreUncertainError(`${host} does not go on with "${key}"`, { key });
  const pieces = (message as AsyncIterable<Uint8Array>)[Symbol.asyncIterator]();
  // Also while nobody reads: nothing of it is wanted any more.
  const abort = () => message.destroy();
  for (const signal of signals) signal?.addEventListener('abort', abort, { once: true });
  message.once('close', () => {
    for (const signal of signals) signal?.removeEventListener('abort', abort);
  });
  // Who reads hears of it; who does not read is not to be stopped by it.
  message.on('error', () => {});

  async function next(): Promise<IteratorResult<Uint8Array>> {
    const began = performance.now();
    const deadline = new Deadline(left, late, signals);
    deadline.signal.addEventListener('abort', abort, { once: true });
    try {
      deadline.signal.throwIfAborted();
      return await pieces.next();
    } catch (error) {
      deadline.signal.throwIfAborted();
      throw failureOf(error, host);
    } finally {
      left -= performance.now() - began;
      deadline.release();
    }
  }

  async function* timed(): AsyncGenerator<Uint8Array, void, void> {
    try {
      for (let piece = await next(); !piece.done; piece = await next()) yield piece.value;
    } finally {
      message.destroy();
    }
  }

  return new Body(message, provenBody(timed(), { key, length, sha256 }));
}

/** Its connection ends with one that is dropped unread, or halfway: nothing of it can come any more. */
const DROPPED = new FinalizationRegistry<IncomingMessage>((message) => message.destroy());

/** Its own iterator, so that whoever reads holds it. */
class Body implements AsyncIterableIterator<Uint8Array> {
  readonly #message: IncomingMessage;
  readonly #bytes: AsyncGenerator<Uint8Array, void, void>;

  constructor(message: IncomingMessage, bytes: AsyncGenerator<Uint8Array, void, void>) {
    this.#message = message;
    this.#bytes = bytes;
    DROPPED.register(this, message);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<IteratorResult<Uint8Array>> {
    return this.#bytes.next();
  }

  async return(): Promise<IteratorResult<Uint8Array>> {
    // A generator that was not begun does not come to its end.
    this.#message.destroy();
    return this.#bytes.return();
  }
}
