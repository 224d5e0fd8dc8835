import type { Duplex } from 'node:stream';
import { promisify } from 'node:util';
import zlib from 'node:zlib';
import { NotSupportedError, StorageError } from '../../errors.js';
import { writeFully } from '../../files/durable.js';
import type { FileSystem } from '../../files/file-system.js';
import type { Compressed, Deliver, FormatResult } from '../format.js';
import { inPieces } from '../pieces.js';
import { compressThrough, STEP, transformed } from '../through-stream.js';
import { CONTENT_CHECKSUM, FrameWalk, isSkippable, LAST_BLOCK, MAGIC, u32 } from './frame.js';
import { Xxh64 } from './xxh64.js';

/** Since Node.js 22.15; not in the types of the oldest supported version. */
const { zstdCompress, createZstdCompress, createZstdDecompress } = zlib as unknown as {
  zstdCompress?: (
    bytes: Uint8Array,
    options: object,
    done: (error: Error | null, compressed: Uint8Array) => void,
  ) => void;
  createZstdCompress?: (options: { chunkSize: number; params: Record<number, number> }) => Duplex;
  createZstdDecompress?: (options: { chunkSize: number }) => Duplex;
};
/** ZSTD_c_compressionLevel, ZSTD_c_contentSizeFlag and ZSTD_c_checksumFlag of zstd.h. */
const LEVEL = 100;
const CONTENT_SIZE = 200;
const CHECKSUM = 201;
/** CLEVEL_DEFAULT of zstd.h. */
const DEFAULT_LEVEL = 3;

/** Several frames are one text. */
export async function decompress({ reader }: Compressed, deliver: Deliver): Promise<FormatResult> {
  for (let frames = 0; ; frames++) {
    if (frames > 0 && (await reader.atEnd())) return { end: 'complete', trailingGarbage: false };
    const magic = await reader.read(4);
    const number = magic ? u32(magic) : 0;
    if (magic && isSkippable(number)) {
      const size = await reader.read(4);
      if (size && (await reader.skip(u32(size)))) continue;
      return { end: 'cut', trailingGarbage: false };
    }
    if (number !== MAGIC) {
      if (frames > 0) return { end: 'complete', trailingGarbage: true };
      if (!magic) return { end: 'cut', trailingGarbage: false };
      return { end: 'damaged', problem: 'no zstd frame', trailingGarbage: false };
    }
    const result = await decompressFrame(new FrameWalk(reader), deliver);
    if (result.end !== 'complete') return result;
  }
}

async function decompressFrame(walk: FrameWalk, deliver: Deliver): Promise<FormatResult> {
  const damaged = (problem: string): FormatResult => ({
    end: 'damaged',
    problem,
    trailingGarbage: false,
  });
  const hash = new Xxh64();
  let size = 0;
  try {
    for await (const chunk of await decompressed(walk)) {
      hash.update(chunk);
      size += chunk.length;
      if (await deliver(chunk)) return { end: 'limit', trailingGarbage: false };
    }
  } catch (e) {
    if (!(e instanceof DamagedFrame)) throw e;
    return damaged(e.message);
  }
  if (walk.problem !== undefined) return damaged(walk.problem);
  if (walk.checksum !== undefined && Number(hash.digest() & 0xffff_ffffn) !== walk.checksum) {
    return damaged('checksum of the zstd content');
  }
  if (walk.end === 'complete' && walk.size !== undefined && walk.size !== size) {
    return damaged(`the zstd frame has ${size} bytes of content instead of ${walk.size}`);
  }
  return { end: walk.end, trailingGarbage: false };
}

class DamagedFrame extends Error {}

async function decompressed(walk: FrameWalk): Promise<AsyncIterable<Uint8Array>> {
  return createZstdDecompress
    ? natively(createZstdDecompress({ chunkSize: STEP }), walk)
    : inWebAssembly(walk);
}

async function* natively(stream: Duplex, walk: FrameWalk): AsyncGenerator<Uint8Array> {
  try {
    yield* transformed(stream, walk.pieces());
  } catch (e) {
    const { code, message } = e as NodeJS.ErrnoException;
    // It ends too early: the walk knows that as well.
    if (code === 'Z_BUF_ERROR' && walk.end !== 'complete') return;
    if (code === 'Z_BUF_ERROR' || code?.startsWith('ZSTD_')) throw new DamagedFrame(message);
    throw e;
  }
}

/** Content of a frame that is decompressed at once, at most. */
const MOST_AT_ONCE = 512 * 1024 * 1024;

/**
 * Before Node.js 22.15: all of a frame at once, of which walkeep makes small ones. Of one that is cut
 * or damaged as many blocks as are good.
 */
async function* inWebAssembly(walk: FrameWalk): AsyncGenerator<Uint8Array> {
  const pieces: Uint8Array[] = [];
  for await (const piece of walk.pieces()) {
    pieces.push(piece);
    if (walk.most <= MOST_AT_ONCE) continue;
    throw new NotSupportedError('a zstd frame of this size needs Node.js 22.15 or later');
  }
  const blocks = pieces.length - 1;
  if (blocks < 1) return;
  const { decompress } = await loadWasm();
  const upTo = (count: number): Uint8Array | undefined => {
    const last = Uint8Array.from(pieces[count] as Uint8Array);
    last[0] = (last[0] as number) | LAST_BLOCK;
    const frame = Buffer.concat([...pieces.slice(0, count), last]);
    try {
      return decompress(frame, { defaultHeapSize: Math.max(1, walk.most) });
    } catch {
      return undefined;
    }
  };
  let content = upTo(blocks);
  const isDamaged = content === undefined;
  for (let [good, bad] = [0, blocks]; isDamaged && bad - good > 1; ) {
    const middle = (good + bad) >> 1;
    const part = upTo(middle);
    content = part ?? content;
    if (part) good = middle;
    else bad = middle;
  }
  for (let at = 0; at < (content?.length ?? 0); at += STEP) {
    yield (content as Uint8Array).subarray(at, at + STEP);
  }
  if (isDamaged) throw new DamagedFrame('the content of the zstd frame');
}

/** In Node's thread pool where it has zstd, otherwise between other work in this thread. */
export async function compress(
  from: number,
  to: number,
  length: number,
  { level = DEFAULT_LEVEL, fs }: { level?: number; fs: FileSystem },
): Promise<void> {
  if (createZstdCompress) {
    await compressThrough(compressor(createZstdCompress, level), from, to, length, fs);
    return;
  }
  let written = 0;
  for await (const chunk of compressStream(content(from, length, fs), { level })) {
    await writeFully(fs, to, chunk, written);
    written += chunk.length;
  }
}

export function compressStream(
  plain: AsyncIterable<Uint8Array>,
  { level = DEFAULT_LEVEL }: { level?: number },
): AsyncIterable<Uint8Array> {
  return createZstdCompress
    ? transformed(compressor(createZstdCompress, level), plain)
    : inFrames(plain, level);
}

function compressor(create: NonNullable<typeof createZstdCompress>, level: number): Duplex {
  return create({ chunkSize: STEP / 2, params: { [LEVEL]: level, [CHECKSUM]: 1 } });
}

async function* content(fd: number, length: number, fs: FileSystem): AsyncGenerator<Uint8Array> {
  const buffer = Buffer.allocUnsafeSlow(STEP);
  for (let at = 0; at < length; ) {
    const bytesRead = await fs.read(fd, buffer, Math.min(STEP, length - at), at);
    if (bytesRead === 0) throw new StorageError('the file became shorter while it was read');
    at += bytesRead;
    yield buffer.subarray(0, bytesRead);
  }
}

/**
 * Content of one frame where a frame is made at once: one block of zstd's. What is compressed and the
 * tables for it stay in the CPU's caches so, which takes a third off the time that frames of 2 MiB
 * take; WAL gets a little smaller by it, other than text.
 */
const FRAME = 128 * 1024;

let wasm: Promise<typeof import('@bokuweb/zstd-wasm')> | undefined;

function loadWasm() {
  wasm ??= import('@bokuweb/zstd-wasm').then(async (module) => {
    await module.init();
    return module;
  });
  return wasm;
}

async function* inFrames(
  plain: AsyncIterable<Uint8Array>,
  level: number,
): AsyncGenerator<Uint8Array> {
  const { compress } = await loadWasm();
  for await (const { piece } of inPieces(plain, FRAME))
    yield* checked(compress(piece, level), piece);
}

/** A frame that was made of `plain` without a checksum, and the checksum that stands behind it then. */
function checked(frame: Uint8Array, plain: Uint8Array): [Uint8Array, Uint8Array] {
  const hash = new Xxh64();
  hash.update(plain);
  frame[4] = (frame[4] as number) | CONTENT_CHECKSUM;
  const checksum = Buffer.alloc(4);
  checksum.writeUInt32LE(Number(hash.digest() & 0xffff_ffffn));
  return [frame, checksum];
}

export async function compressWhole(
  plain: Uint8Array,
  { level = DEFAULT_LEVEL }: { level?: number },
): Promise<Uint8Array> {
  if (zstdCompress) {
    const params = { [LEVEL]: level, [CHECKSUM]: 1, [CONTENT_SIZE]: 1 };
    const options = { chunkSize: 4 * STEP, pledgedSrcSize: plain.length, params };
    return promisify<Uint8Array, object, Uint8Array>(zstdCompress)(plain, options);
  }
  const { compress } = await loadWasm();
  return Buffer.concat(checked(compress(plain, level), plain));
}

/** The frames of `compressStream` where Node has no zstd; their length. @throws RangeError if they do not fit */
export async function compressInto(
  plain: Uint8Array,
  into: Uint8Array,
  level = DEFAULT_LEVEL,
): Promise<number> {
  const { compress } = await loadWasm();
  let written = 0;
  // Of nothing there is a frame as well.
  for (let at = 0; at === 0 || at < plain.length; at += FRAME) {
    const piece = plain.subarray(at, at + FRAME);
    for (const bytes of checked(compress(piece, level), piece)) {
      into.set(bytes, written);
      written += bytes.length;
    }
  }
  return written;
}
