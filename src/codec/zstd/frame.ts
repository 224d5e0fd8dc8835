import type { ByteSource, DecompressEnd } from '../format.js';

// Zstandard frame format: RFC 8878.
export const MAGIC = 0xfd2fb528;
const SKIPPABLE_MAGIC = 0x184d2a50;
const SINGLE_SEGMENT = 0x20;
const RESERVED = 0x08;
export const CONTENT_CHECKSUM = 0x04;
const DICTIONARY_ID = 0x03;
/** In a block's header. */
export const LAST_BLOCK = 0x01;
/** Lengths of header fields by the bits that announce them. */
const DICTIONARY_ID_SIZE = [0, 1, 2, 4] as const;
const CONTENT_SIZE_SIZE = [0, 2, 4, 8] as const;
const LARGEST_BLOCK = 128 * 1024;
/** What zstd itself takes without being told otherwise (--long=27). */
const LARGEST_WINDOW = 128 * 1024 * 1024;

export const u32 = (b: Uint8Array): number =>
  new DataView(b.buffer, b.byteOffset, b.length).getUint32(0, true);

export const isSkippable = (magic: number): boolean => (magic & ~15) >>> 0 === SKIPPABLE_MAGIC;

/** One frame on its way to a decompressor: its own structure, without what is compressed in it. */
export class FrameWalk {
  /** How the frame ended; until then as if it were cut here. */
  end: Exclude<DecompressEnd, 'limit'> = 'cut';
  problem: string | undefined;
  /** Of the content, where the frame has one; the lower half of its XXH64. */
  checksum: number | undefined;
  /** Bytes of content, where the frame announces them. */
  size: number | undefined;
  /** Bytes of content at most, of the blocks so far. */
  most = 0;
  readonly #reader: ByteSource;

  /** @param reader behind the magic number */
  constructor(reader: ByteSource) {
    this.#reader = reader;
  }

  /**
   * The frame's bytes: a header, then block by block. The header announces neither a checksum, which
   * is left out and for whoever decompresses to check, nor how much content there is: what the
   * blocks up to any one hold is a frame once that is marked as the last. Each piece is its taker's.
   */
  async *pieces(): AsyncGenerator<Uint8Array> {
    const header = await this.#header();
    if (!header) return;
    const { bytes, largestBlock, hasChecksum } = header;
    yield bytes;
    for (;;) {
      const head = (await this.#reader.read(3))?.slice();
      if (!head) return;
      const [low = 0, middle = 0, high = 0] = head;
      const size = (low | (middle << 8) | (high << 16)) >>> 3;
      const type = (low >> 1) & 3;
      if (type === 3 || size > largestBlock) return this.#damaged('a block of the zstd frame');
      // One byte, repeated.
      const content = await this.#reader.read(type === 1 ? 1 : size);
      if (!content) return;
      this.most += type === 2 ? largestBlock : size;
      yield Buffer.concat([head, content]);
      if (low & LAST_BLOCK) break;
    }
    if (hasChecksum) {
      const checksum = await this.#reader.read(4);
      if (!checksum) return;
      this.checksum = u32(checksum);
    }
    this.end = 'complete';
  }

  async #header() {
    const descriptor = (await this.#reader.read(1))?.[0];
    if (descriptor === undefined) return undefined;
    if (descriptor & RESERVED) return this.#damaged('the header of the zstd frame');
    const single = (descriptor & SINGLE_SEGMENT) !== 0;
    const contentSizeCode = descriptor >> 6;
    const beforeSize =
      (single ? 0 : 1) + (DICTIONARY_ID_SIZE[descriptor & DICTIONARY_ID] as number);
    const sizeLength =
      single && contentSizeCode === 0 ? 1 : (CONTENT_SIZE_SIZE[contentSizeCode] as number);
    const fields = (await this.#reader.read(beforeSize + sizeLength))?.slice();
    if (!fields) return undefined;
    if (descriptor & DICTIONARY_ID) return this.#damaged('a zstd frame with a dictionary');
    if (sizeLength > 0) {
      this.size = littleEndian(fields.subarray(beforeSize)) + (sizeLength === 2 ? 256 : 0);
    }
    const window = single ? (this.size as number) : windowSize(fields[0] as number);
    if (window > LARGEST_WINDOW) {
      return this.#damaged(`the zstd frame needs a window of ${window} bytes`);
    }
    const bytes = new Uint8Array(6);
    new DataView(bytes.buffer).setUint32(0, MAGIC, true);
    bytes[5] = single ? windowDescriptor(window) : (fields[0] as number);
    const hasChecksum = (descriptor & CONTENT_CHECKSUM) !== 0;
    return { bytes, hasChecksum, largestBlock: Math.min(window, LARGEST_BLOCK) };
  }

  #damaged(problem: string): undefined {
    this.end = 'damaged';
    this.problem = problem;
  }
}

/** Of the smallest window of that size or more. */
function windowDescriptor(size: number): number {
  return Math.max(0, Math.ceil(Math.log2(Math.max(1, size))) - 10) << 3;
}

function windowSize(descriptor: number): number {
  const base = 2 ** (10 + (descriptor >> 3));
  return base + (base / 8) * (descriptor & 7);
}

function littleEndian(bytes: Uint8Array): number {
  return bytes.reduceRight((number, byte) => number * 256 + byte, 0);
}
