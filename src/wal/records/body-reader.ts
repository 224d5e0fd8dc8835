import { CorruptWalError } from '../../errors.js';
import type { Lsn } from '../../lsn.js';

/** Reads the fields of a record in their order, little-endian and unaligned. */
export class BodyReader {
  /** Offset of the next byte. */
  at = 0;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #what: string;

  /** `what` names the record in errors, e.g. `commit record`. */
  constructor(bytes: Uint8Array, what: string) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#what = what;
  }

  /** Bytes not read yet. */
  get left(): number {
    return this.#bytes.length - this.at;
  }

  u8(): number {
    return this.#view.getUint8(this.#take(1));
  }

  u16(): number {
    return this.#view.getUint16(this.#take(2), true);
  }

  u32(): number {
    return this.#view.getUint32(this.#take(4), true);
  }

  i32(): number {
    return this.#view.getInt32(this.#take(4), true);
  }

  u64(): bigint {
    return this.#view.getBigUint64(this.#take(8), true);
  }

  i64(): bigint {
    return this.#view.getBigInt64(this.#take(8), true);
  }

  lsn(): Lsn {
    return this.u64() as Lsn;
  }

  /** The next `length` bytes, a view. */
  bytes(length: number): Uint8Array {
    const from = this.#take(length);
    return this.#bytes.subarray(from, from + length);
  }

  skip(length: number): void {
    this.#take(length);
  }

  /** An i32 that says how many items of `size` bytes follow; all of them are there. */
  count(size: number): number {
    const n = this.i32();
    if (n < 0 || n * size > this.left) throw this.corrupt(`it counts ${n} items`);
    return n;
  }

  /** Text up to the zero byte that ends it, which is read as well. */
  string(): string {
    const end = this.#bytes.indexOf(0, this.at);
    if (end < 0) throw this.corrupt('a text in it has no end');
    const text = decodeText(this.#bytes.subarray(this.at, end));
    this.at = end + 1;
    return text;
  }

  corrupt(why: string): CorruptWalError {
    return new CorruptWalError(`contents of a ${this.#what} are invalid: ${why}`);
  }

  #take(length: number): number {
    const from = this.at;
    if (length > this.left) {
      const message = `contents of a ${this.#what} are too short`;
      const expected = `${length} bytes at ${from}`;
      throw new CorruptWalError(message, { expected, actual: `${this.left}` });
    }
    this.at = from + length;
    return from;
  }
}

const utf8 = new TextDecoder();

/** Names in WAL are in the encoding of their database; what is no UTF-8 shows as U+FFFD. */
export function decodeText(bytes: Uint8Array): string {
  return utf8.decode(bytes);
}
