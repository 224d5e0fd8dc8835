import type { ByteSource, Compressed, Deliver, FormatResult } from '../format.js';
import { compressBound } from './block.js';
import { takeLz4Encoder } from './encoder.js';
import { type Lz4Decoder, takeLz4Decoder } from './kernel.js';
import { Xxh32, xxh32 } from './xxh32.js';

// LZ4 frame format: lz4_Frame_format.md 1.6.2.
const MAGIC = 0x184d2204;
const SKIPPABLE_MAGIC = 0x184d2a50;
const VERSION = 0x40;
const BLOCK_INDEPENDENT = 0x20;
const BLOCK_CHECKSUM = 0x10;
const CONTENT_SIZE = 0x08;
const CONTENT_CHECKSUM = 0x04;
const DICTIONARY = 0x01;
/** In a block's length: it is stored as it is. */
const UNCOMPRESSED = 0x80000000;
/** Block maximum size by its code in the header. */
const BLOCK_SIZES: Record<number, number> = { 4: 1 << 16, 5: 1 << 18, 6: 1 << 20, 7: 1 << 22 };
/** How far back matches reach. */
const WINDOW = 64 * 1024;

const damaged = (problem: string): FormatResult => ({
  end: 'damaged',
  problem,
  trailingGarbage: false,
});
const u32 = (b: Uint8Array, at = 0) => new DataView(b.buffer, b.byteOffset).getUint32(at, true);

/**
 * Decompresses the LZ4 frames of a file: linked and independent blocks, all checksums, several
 * frames, skippable frames. Of a frame that was not finished all whole blocks are delivered.
 */
export async function decompress({ reader }: Compressed, deliver: Deliver): Promise<FormatResult> {
  for (let frames = 0; ; frames++) {
    if (frames > 0 && (await reader.atEnd())) return { end: 'complete', trailingGarbage: false };
    const magic = await reader.read(4);
    const number = magic ? u32(magic) : 0;
    if (magic && (number & ~15) >>> 0 === SKIPPABLE_MAGIC) {
      const size = await reader.read(4);
      if (!size || !(await reader.skip(u32(size)))) return { end: 'cut', trailingGarbage: false };
      continue;
    }
    if (number !== MAGIC) {
      if (frames > 0) return { end: 'complete', trailingGarbage: true };
      return magic ? damaged('no LZ4 frame') : { end: 'cut', trailingGarbage: false };
    }
    const result = await decompressFrame(reader, deliver);
    if (result.end !== 'complete') return result;
  }
}

async function decompressFrame(reader: ByteSource, deliver: Deliver): Promise<FormatResult> {
  const cut: FormatResult = { end: 'cut', trailingGarbage: false };
  const fixed = (await reader.read(2))?.slice();
  if (!fixed) return cut;
  const [flags = 0, sizeCode = 0] = fixed;
  const blockSize = BLOCK_SIZES[(sizeCode >> 4) & 7];
  if ((flags & 0xc0) !== VERSION || !blockSize) return damaged('unknown LZ4 frame header');
  if (flags & DICTIONARY) return damaged('LZ4 frame with a dictionary');
  const length = flags & CONTENT_SIZE ? 10 : 2;
  const rest = await reader.read(length + 1 - fixed.length);
  if (!rest) return cut;
  const header = new Uint8Array([...fixed, ...rest]);
  if (((xxh32(header.subarray(0, length)) >> 8) & 0xff) !== header[length]) {
    return damaged('checksum of the LZ4 frame header');
  }

  const decoder = takeLz4Decoder(blockSize, WINDOW + blockSize);
  try {
    return await decompressBlocks(reader, deliver, { header, flags, blockSize, decoder });
  } finally {
    decoder.release();
  }
}

interface Frame {
  header: Uint8Array;
  flags: number;
  blockSize: number;
  decoder: Lz4Decoder;
}

/** What follows a frame's header. */
async function decompressBlocks(
  reader: ByteSource,
  deliver: Deliver,
  { header, flags, blockSize, decoder }: Frame,
): Promise<FormatResult> {
  const cut: FormatResult = { end: 'cut', trailingGarbage: false };
  const linked = (flags & BLOCK_INDEPENDENT) === 0;
  const trailer = flags & BLOCK_CHECKSUM ? 4 : 0;
  const hash = flags & CONTENT_CHECKSUM ? new Xxh32() : undefined;
  // Linked blocks refer to the end of their predecessor, which is kept in front of them.
  const buffer = decoder.output;
  let kept = 0;
  let total = 0;
  for (;;) {
    const sizeField = await reader.read(4);
    if (!sizeField) return cut;
    const field = u32(sizeField);
    if (field === 0) break;
    const size = (field & ~UNCOMPRESSED) >>> 0;
    if (size > blockSize) return damaged('size of an LZ4 block');
    const block = await reader.read(size + trailer);
    if (!block) return cut;
    const data = block.subarray(0, size);
    if (trailer && xxh32(data) !== u32(block, size)) return damaged('checksum of an LZ4 block');
    let end = kept + size;
    if (field & UNCOMPRESSED) buffer.set(data, kept);
    else {
      try {
        end = decoder.block(data, kept, kept + blockSize);
      } catch (e) {
        return damaged((e as RangeError).message);
      }
    }
    const output = buffer.subarray(kept, end);
    hash?.update(output);
    total += output.length;
    if (await deliver(output)) return { end: 'limit', trailingGarbage: false };
    if (linked) {
      const from = Math.max(0, end - WINDOW);
      buffer.copyWithin(0, from, end);
      kept = end - from;
    }
  }
  if (hash) {
    const expected = await reader.read(4);
    if (!expected) return cut;
    if (hash.digest() !== u32(expected)) return damaged('checksum of the LZ4 content');
  }
  if (flags & CONTENT_SIZE) {
    const { buffer: bytes, byteOffset } = header;
    const announced = new DataView(bytes, byteOffset).getBigUint64(2, true);
    if (announced !== BigInt(total)) return damaged('size of the LZ4 content');
  }
  return { end: 'complete', trailingGarbage: false };
}

/** Input bytes per call of `Lz4FrameEncoder.block`; a shorter one is the last. */
export const LZ4_BLOCK_SIZE = 1 << 18;
const BLOCK_SIZE_CODE = 5;

/** Writes one LZ4 frame: independent blocks, content size and content checksum. */
export class Lz4FrameEncoder {
  readonly #hash = new Xxh32();
  readonly #encoder = takeLz4Encoder(LZ4_BLOCK_SIZE);
  readonly #out = new Uint8Array(4 + compressBound(LZ4_BLOCK_SIZE));

  /** The frame header. `contentSize` is the length of all blocks together, bytes, where it is known. */
  header(contentSize?: number): Uint8Array {
    const end = contentSize === undefined ? 6 : 14;
    const out = new Uint8Array(end + 1);
    const view = new DataView(out.buffer);
    view.setUint32(0, MAGIC, true);
    out[4] = VERSION | BLOCK_INDEPENDENT | CONTENT_CHECKSUM;
    out[5] = BLOCK_SIZE_CODE << 4;
    if (contentSize !== undefined) {
      out[4] |= CONTENT_SIZE;
      view.setBigUint64(6, BigInt(contentSize), true);
    }
    out[end] = xxh32(out.subarray(4, end)) >> 8;
    return out;
  }

  /** One block, valid until the next call. */
  block(input: Uint8Array): Uint8Array {
    this.#hash.update(input);
    const out = this.#out;
    const view = new DataView(out.buffer);
    const block = this.#encoder.block(input);
    if (block.length < input.length) {
      view.setUint32(0, block.length, true);
      out.set(block, 4);
      return out.subarray(0, 4 + block.length);
    }
    view.setUint32(0, (UNCOMPRESSED | input.length) >>> 0, true);
    out.set(input, 4);
    return out.subarray(0, 4 + input.length);
  }

  /** End mark and content checksum. */
  end(): Uint8Array {
    this.#encoder.release();
    const out = new Uint8Array(8);
    new DataView(out.buffer).setUint32(4, this.#hash.digest(), true);
    return out;
  }
}
