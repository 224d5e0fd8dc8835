import { LITTLE_ENDIAN_HOST } from '../../wal/crc32c.js';

const P1 = 0x9e3779b1;
const P2 = 0x85ebca77;
const P3 = 0xc2b2ae3d;
const P4 = 0x27d4eb2f;
const P5 = 0x165667b1;

const rotl = (x: number, r: number) => (x << r) | (x >>> (32 - r));
const round = (acc: number, lane: number) => Math.imul(rotl(acc + Math.imul(lane, P2), 13), P1);
const readU32 = (b: Uint8Array, i: number) =>
  (b[i] as number) |
  ((b[i + 1] as number) << 8) |
  ((b[i + 2] as number) << 16) |
  ((b[i + 3] as number) << 24);

/** xxHash, 32 bit, seed 0: the checksum of LZ4 frames (xxHash specification, "XXH32"). */
export class Xxh32 {
  #v1 = (P1 + P2) | 0;
  #v2 = P2 | 0;
  #v3 = 0;
  #v4 = -P1 | 0;
  #length = 0;
  /** The bytes after the last whole stripe of 16. */
  readonly #rest = new Uint8Array(16);
  #restLength = 0;

  /** Takes more input. */
  update(bytes: Uint8Array): this {
    this.#length += bytes.length;
    let at = 0;
    if (this.#restLength > 0) {
      at = Math.min(16 - this.#restLength, bytes.length);
      this.#rest.set(bytes.subarray(0, at), this.#restLength);
      this.#restLength += at;
      if (this.#restLength < 16) return this;
      this.#stripes(this.#rest, 0, 16);
      this.#restLength = 0;
    }
    const end = bytes.length - ((bytes.length - at) % 16);
    this.#stripes(bytes, at, end);
    this.#rest.set(bytes.subarray(end));
    this.#restLength = bytes.length - end;
    return this;
  }

  #stripes(b: Uint8Array, from: number, to: number): void {
    let v1 = this.#v1;
    let v2 = this.#v2;
    let v3 = this.#v3;
    let v4 = this.#v4;
    const offset = b.byteOffset + from;
    if (LITTLE_ENDIAN_HOST && (offset & 3) === 0) {
      const words = new Int32Array(b.buffer, offset, (to - from) >> 2);
      for (let w = 0; w < words.length; w += 4) {
        v1 = round(v1, words[w]!);
        v2 = round(v2, words[w + 1]!);
        v3 = round(v3, words[w + 2]!);
        v4 = round(v4, words[w + 3]!);
      }
    } else {
      for (let i = from; i < to; i += 16) {
        v1 = round(v1, readU32(b, i));
        v2 = round(v2, readU32(b, i + 4));
        v3 = round(v3, readU32(b, i + 8));
        v4 = round(v4, readU32(b, i + 12));
      }
    }
    this.#v1 = v1;
    this.#v2 = v2;
    this.#v3 = v3;
    this.#v4 = v4;
  }

  /** The hash of everything so far, unsigned. */
  digest(): number {
    let h =
      this.#length >= 16
        ? rotl(this.#v1, 1) + rotl(this.#v2, 7) + rotl(this.#v3, 12) + rotl(this.#v4, 18)
        : P5;
    h = (h + this.#length) | 0;
    let i = 0;
    for (; i + 4 <= this.#restLength; i += 4) {
      h = Math.imul(rotl(h + Math.imul(readU32(this.#rest, i), P3), 17), P4);
    }
    for (; i < this.#restLength; i++) {
      h = Math.imul(rotl(h + Math.imul(this.#rest[i] as number, P5), 11), P1);
    }
    h = Math.imul(h ^ (h >>> 15), P2);
    h = Math.imul(h ^ (h >>> 13), P3);
    return (h ^ (h >>> 16)) >>> 0;
  }
}

/** Hash of one piece of input. */
export function xxh32(bytes: Uint8Array): number {
  return new Xxh32().update(bytes).digest();
}
