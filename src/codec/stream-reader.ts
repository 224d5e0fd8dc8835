import type { ByteSource } from './format.js';

const NOTHING = new Uint8Array(0);

/** Reads bytes that come once, in chunks of any size, which must stay as they are. */
export class StreamReader implements ByteSource {
  position = 0;
  readonly #chunks: AsyncIterator<Uint8Array>;
  #buffer: Uint8Array = NOTHING;
  #ended = false;

  constructor(chunks: AsyncIterable<Uint8Array>) {
    this.#chunks = chunks[Symbol.asyncIterator]();
  }

  async read(length: number): Promise<Uint8Array | undefined> {
    if (this.#buffer.length < length) await this.#fill(length);
    if (this.#buffer.length < length) return undefined;
    return this.#take(length);
  }

  async readUpTo(length: number): Promise<Uint8Array> {
    if (this.#buffer.length === 0) await this.#fill(1);
    return this.#take(Math.min(length, this.#buffer.length));
  }

  async atEnd(): Promise<boolean> {
    if (this.#buffer.length === 0) await this.#fill(1);
    return this.#buffer.length === 0;
  }

  async skip(length: number): Promise<boolean> {
    for (let left = length; left > 0; ) {
      const passed = await this.readUpTo(left);
      if (passed.length === 0) return false;
      left -= passed.length;
    }
    return true;
  }

  unread(bytes: Uint8Array): void {
    this.position -= bytes.length;
    const next = this.#buffer;
    const isBefore =
      bytes.buffer === next.buffer && bytes.byteOffset + bytes.length === next.byteOffset;
    // Mostly it was taken from the same chunk, which may be large.
    if (next.length === 0) this.#buffer = bytes;
    else if (isBefore) {
      const length = bytes.length + next.length;
      this.#buffer = new Uint8Array(bytes.buffer, bytes.byteOffset, length);
    } else this.#buffer = Buffer.concat([bytes, next]);
  }

  /** What comes next, without a step forward: up to `length` bytes, fewer only at the end. */
  async peek(length: number): Promise<Uint8Array> {
    if (this.#buffer.length < length) await this.#fill(length);
    return this.#buffer.subarray(0, length);
  }

  /** No more is wanted: whoever makes the chunks may stop. */
  async close(): Promise<void> {
    this.#ended = true;
    this.#buffer = NOTHING;
    await this.#chunks.return?.();
  }

  #take(length: number): Uint8Array {
    const bytes = this.#buffer.subarray(0, length);
    this.#buffer = this.#buffer.subarray(length);
    this.position += length;
    return bytes;
  }

  /** Until there are `length` bytes, or no more come. */
  async #fill(length: number): Promise<void> {
    const parts = this.#buffer.length === 0 ? [] : [this.#buffer];
    let have = this.#buffer.length;
    while (have < length && !this.#ended) {
      const { done, value } = await this.#chunks.next();
      if (done) this.#ended = true;
      else if (value.length > 0) {
        parts.push(value);
        have += value.length;
      }
    }
    this.#buffer = parts.length === 1 ? (parts[0] as Uint8Array) : Buffer.concat(parts);
  }
}
