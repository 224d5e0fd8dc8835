import type { Writable } from 'node:stream';
import { StoreUncertainError } from '../../errors.js';
import { encodeHeader, MAX_PAYLOAD, violation, WINDOW } from './frame.js';

/** Sends frames, no faster than they are taken. */
export class FrameWriter {
  readonly #output: Writable;
  #waiting: Promise<void> | undefined;
  #failed: Error | undefined;

  constructor(output: Writable) {
    this.#output = output;
    // Told by whoever reads from the other side.
    output.on('error', (error) => {
      this.#failed ??= error;
    });
  }

  /** Resolves when more may be written. @throws the stream's error */
  async write(type: number, id: number, payload: Uint8Array = Buffer.alloc(0)): Promise<void> {
    if (this.#failed) throw this.#failed;
    if (this.#output.writableEnded) throw new StoreUncertainError('the connection is closed');
    if (payload.length > MAX_PAYLOAD) throw violation(`a frame of ${payload.length} bytes`);
    this.#output.cork();
    this.#output.write(encodeHeader(type, id, payload.length));
    const more = payload.length === 0 ? true : this.#output.write(payload);
    this.#output.uncork();
    if (!more) await this.#drained();
  }

  json(type: number, id: number, value: object): Promise<void> {
    return this.write(type, id, Buffer.from(JSON.stringify(value)));
  }

  #drained(): Promise<void> {
    this.#waiting ??= new Promise<void>((resolve) => {
      const done = () => {
        this.#waiting = undefined;
        for (const event of ['drain', 'close', 'error']) this.#output.off(event, done);
        resolve();
      };
      for (const event of ['drain', 'close', 'error']) this.#output.once(event, done);
      if (this.#output.destroyed) done();
    });
    return this.#waiting;
  }
}

/** How much may be sent: pieces wait until the other side has read enough of those before. */
export class Credit {
  #left = WINDOW;
  #failed: { error: unknown } | undefined;
  #wake: (() => void) | undefined;

  give(bytes: number): void {
    this.#left += bytes;
    this.#wake?.();
  }

  fail(error: unknown): void {
    this.#failed ??= { error };
    this.#wake?.();
  }

  async take(bytes: number): Promise<void> {
    while (this.#left <= 0 && !this.#failed) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    if (this.#failed) throw this.#failed.error;
    this.#left -= bytes;
  }
}

/** The pieces that arrived for one reader. */
export class Inbox implements AsyncIterable<Buffer> {
  readonly #onRead: (bytes: number) => void;
  /** Somebody reads it. */
  begun = false;
  readonly #pieces: Buffer[] = [];
  #size = 0;
  #end: { error?: unknown } | undefined;
  #wake: (() => void) | undefined;

  /** @param onRead told of what was taken out */
  constructor(onRead: (bytes: number) => void) {
    this.#onRead = onRead;
  }

  /** @throws StoreUncertainError if that is more than was allowed */
  push(piece: Buffer): void {
    if (this.#end) return;
    this.#size += piece.length;
    if (this.#size > WINDOW + MAX_PAYLOAD) throw violation('more data than there was credit for');
    this.#pieces.push(piece);
    this.#wake?.();
  }

  end(): void {
    this.#end ??= {};
    this.#wake?.();
  }

  /** Also what is here already is not handed out any more. */
  fail(error: unknown): void {
    this.#end ??= { error };
    this.#wake?.();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Buffer, void, void> {
    this.begun = true;
    for (;;) {
      if (this.#end && 'error' in this.#end) throw this.#end.error;
      const piece = this.#pieces.shift();
      if (piece) {
        this.#size -= piece.length;
        this.#onRead(piece.length);
        yield piece;
      } else if (this.#end) {
        return;
      } else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    }
  }
}
