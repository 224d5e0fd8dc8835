import type { Duplex } from 'node:stream';
import zlib from 'node:zlib';
import { NotSupportedError, StorageError } from '../errors.js';
import { fsyncError, storageError, writeFully } from '../files/durable.js';
import { CREATE_NEW, type FileSystem, nodeFileSystem, OPEN_READ } from '../files/file-system.js';
import { readStream } from '../files/read-stream.js';
import { SpareBuffers } from '../files/spare-buffers.js';
import type { Compression } from '../wal/file-name.js';
import { ByteReader } from './byte-reader.js';
import { decompressGzip } from './gzip.js';
import { type Deliver, decompressLz4, type FormatResult } from './lz4/frame.js';
import { compressLz4InThread } from './lz4/thread.js';

export type { DecompressEnd } from './lz4/frame.js';

/** Since Node.js 22.15; not in the types of the oldest supported version. */
const { createZstdCompress, createZstdDecompress } = zlib as unknown as {
  createZstdCompress?: (options: { chunkSize: number; params: Record<number, number> }) => Duplex;
  createZstdDecompress?: () => Duplex;
};
/** ZSTD_c_compressionLevel of zstd.h. */
const ZSTD_LEVEL = 100;
/** Bytes into one step of a compressor: with node's own the turns of the thread pool took a third of the time. */
const STEP = 256 * 1024;

/** How decompressing a file went. */
export interface DecompressResult extends FormatResult {
  /** Decompressed bytes delivered. */
  bytes: number;
}

/** True if this Node.js can read files of that compression. */
export function canDecompress(compression: Compression): boolean {
  return compression !== 'zstd' || createZstdDecompress !== undefined;
}

/**
 * Decompresses a file and hands the bytes on in pieces, each valid until `onChunk` (or its promise)
 * returns. Damaged and unfinished files are no error here: whatever can be decompressed is
 * delivered and the result says how it ended. `limit` stops after so many bytes.
 * @throws StorageError if the file cannot be read, NotSupportedError for zstd before Node.js 22.15
 */
export async function decompressFile(
  path: string,
  compression: Compression,
  onChunk?: (chunk: Uint8Array) => void | Promise<void>,
  options: { limit?: number; signal?: AbortSignal; fs?: FileSystem } = {},
): Promise<DecompressResult> {
  const { limit = Number.POSITIVE_INFINITY, signal, fs = nodeFileSystem } = options;
  let bytes = 0;
  const deliver: Deliver = async (chunk) => {
    signal?.throwIfAborted();
    const wanted = chunk.length > limit - bytes ? chunk.subarray(0, limit - bytes) : chunk;
    bytes += wanted.length;
    await onChunk?.(wanted);
    return bytes >= limit;
  };
  if (compression === 'zstd') return { ...(await decompressZstd(path, deliver, fs)), bytes };
  const reader = await ByteReader.open(path, fs);
  try {
    switch (compression) {
      case 'gzip':
        return { ...(await decompressGzip(path, reader, deliver, fs)), bytes };
      case 'lz4':
        return { ...(await decompressLz4(reader, deliver)), bytes };
      case 'none':
        return { ...(await readPlain(reader, deliver)), bytes };
    }
  } finally {
    await reader.close();
  }
}

async function readPlain(reader: ByteReader, deliver: Deliver): Promise<FormatResult> {
  for (;;) {
    const chunk = await reader.readUpTo(Number.POSITIVE_INFINITY);
    if (chunk.length === 0) return { end: 'complete', trailingGarbage: false };
    if (await deliver(chunk)) return { end: 'limit', trailingGarbage: false };
  }
}

async function decompressZstd(
  path: string,
  deliver: Deliver,
  fs: FileSystem,
): Promise<FormatResult> {
  if (!createZstdDecompress) throw zstdMissing(path);
  const source = readStream(path, {}, fs);
  const stream = createZstdDecompress();
  source.on('error', (e) => stream.destroy(storageError('read file', path, e)));
  source.pipe(stream);
  try {
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      if (await deliver(chunk)) return { end: 'limit', trailingGarbage: false };
    }
    return { end: 'complete', trailingGarbage: false };
  } catch (e) {
    const { code, message } = e as NodeJS.ErrnoException;
    if (code === 'Z_BUF_ERROR') return { end: 'cut', trailingGarbage: false };
    if (!code?.startsWith('ZSTD_')) throw e;
    return { end: 'damaged', problem: message, trailingGarbage: false };
  } finally {
    source.destroy();
    stream.destroy();
  }
}

function zstdMissing(path: string): NotSupportedError {
  return new NotSupportedError('zstd needs Node.js 22.15 or later', { path });
}

/** How a file is compressed. */
export interface CompressOptions {
  method: Exclude<Compression, 'none'>;
  /** gzip 1 to 9, zstd 1 to 22, each with the method's default; lz4 knows only its fast mode. */
  level?: number;
  /** File mode of the target. Default 0o600. */
  mode?: number;
  /** False skips fsync. Default true. */
  sync?: boolean;
  fs?: FileSystem;
}

/**
 * Compresses the first `length` bytes of a file into `target`, which is made anew and fsynced.
 * Returns the bytes written. gzip and zstd run in Node's thread pool, lz4 in a worker thread
 * (between other work in this one where the worker's file is missing, as in a bundle, or where the
 * files are not those of the real file system).
 * @throws StorageError if a file cannot be read or written, or the source is shorter
 */
export async function compressFile(
  source: string,
  target: string,
  length: number,
  options: CompressOptions,
): Promise<number> {
  if (options.method === 'zstd' && !createZstdCompress) throw zstdMissing(target);
  const { fs = nodeFileSystem } = options;
  const from = await fs.open(source, OPEN_READ, 0).catch((e) => {
    throw storageError('open file', source, e);
  });
  try {
    if ((await fs.size(from)) < length) {
      throw new StorageError(`file "${source}" is shorter than ${length} bytes`, { path: source });
    }
    const to = await openAnew(target, options.mode ?? 0o600, fs);
    try {
      const { method } = options;
      if (method === 'lz4') await compressLz4InThread(from, to, length, fs);
      else await compressThrough(compressor({ ...options, method }, fs), from, to, length, fs);
      if (options.sync ?? true) {
        await fs.fsync(to).catch((e) => {
          throw fsyncError(target, e);
        });
      }
      return await fs.size(to);
    } finally {
      await fs.close(to);
    }
  } catch (e) {
    throw storageError('write file', target, e);
  } finally {
    await fs.close(from);
  }
}

/** As `createAnew`, except that a device or directory of that name stays: it is none of ours. */
async function openAnew(path: string, mode: number, fs: FileSystem): Promise<number> {
  try {
    const found = await fs.kind(path);
    if (found !== undefined && found !== 'other') await fs.unlink(path);
    return await fs.open(path, CREATE_NEW, mode);
  } catch (e) {
    throw storageError('create file', path, e);
  }
}

/** @param method of those that Node.js itself has */
function compressor(
  { method, level }: CompressOptions & { method: 'gzip' | 'zstd' },
  fs: FileSystem,
): Duplex {
  if (method === 'gzip') {
    // The larger hash table costs 128 kB and takes a sixth off the time. Level 1 is for speed: a
    // window that stays in the CPU's first cache takes another eighth off, also of the size where
    // records are small; among full-page images it adds a twentieth to the size.
    const options = { chunkSize: STEP / 4, memLevel: 9, windowBits: level === 1 ? 14 : 15 };
    const { createGzip } = fs.zlib ?? zlib;
    return createGzip(level === undefined ? options : { ...options, level });
  }
  const params = level === undefined ? {} : { [ZSTD_LEVEL]: level };
  return (createZstdCompress as NonNullable<typeof createZstdCompress>)({
    chunkSize: STEP / 2,
    params,
  });
}

/** Of conversions: each has two, and three at most go on at the same time. */
const STEP_BUFFERS = new SpareBuffers(STEP, 6);

/** Compresses the first `length` bytes of one file to the end of another. */
async function compressThrough(
  stream: Duplex,
  from: number,
  to: number,
  length: number,
  fs: FileSystem,
): Promise<void> {
  const store = async (): Promise<void> => {
    let at = 0;
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      await writeFully(fs, to, chunk, at);
      at += chunk.length;
    }
  };
  const feed = async (): Promise<void> => {
    // One is compressed while the other is filled.
    const buffers = [STEP_BUFFERS.take(), STEP_BUFFERS.take()] as const;
    let taken = Promise.resolve();
    for (let at = 0, turn = 0; at < length; turn++) {
      const buffer = buffers[turn % 2] as Buffer;
      const bytesRead = await fs.read(from, buffer, Math.min(STEP, length - at), at);
      if (bytesRead === 0) throw new StorageError('the file became shorter while it was read');
      at += bytesRead;
      await taken;
      taken = new Promise((resolve, reject) => {
        stream.write(buffer.subarray(0, bytesRead), (e) => (e ? reject(e) : resolve()));
      });
      // Waited for with the next one; where reading fails, the stream is done for anyway.
      taken.catch(() => {});
    }
    await taken;
    for (const buffer of buffers) STEP_BUFFERS.giveBack(buffer);
    stream.end();
  };
  try {
    await Promise.all([store(), feed()]);
  } finally {
    stream.destroy();
  }
}
