import { StorageError } from '../errors.js';
import { fsyncError, storageError } from '../files/durable.js';
import { CREATE_NEW, type FileSystem, nodeFileSystem, OPEN_READ } from '../files/file-system.js';
import type { Compression } from '../wal/file-name.js';
import { ByteReader } from './byte-reader.js';
import { type CompressionMethod, compressorOf, decompressorOf } from './codecs.js';
import type { Deliver, FormatResult } from './format.js';

/** How decompressing a file went. */
export interface DecompressResult extends FormatResult {
  /** Decompressed bytes delivered. */
  bytes: number;
}

/**
 * Decompresses a file and hands the bytes on in pieces, each valid until `onChunk` (or its promise)
 * returns. Damaged and unfinished files are no error here: whatever can be decompressed is
 * delivered and the result says how it ended. `limit` stops after so many bytes.
 * @throws StorageError if the file cannot be read, NotSupportedError for a zstd frame too large for
 *   a Node.js without zstd
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
  // First: callers count on the file being open before anything else is waited for.
  const reader = await ByteReader.open(path, fs);
  try {
    const { decompress } = await decompressorOf(compression);
    return { ...(await decompress({ reader, file: { path, fs } }, deliver)), bytes };
  } finally {
    await reader.close();
  }
}

/** How a file is compressed. */
export interface CompressOptions {
  method: CompressionMethod;
  /** Within the method's bounds, see `CODECS`; absent for its default. */
  level?: number;
  /** File mode of the target. Default 0o600. */
  mode?: number;
  /** False skips fsync. Default true. */
  sync?: boolean;
  fs?: FileSystem;
}

/**
 * Compresses the first `length` bytes of a file into `target`, which is made anew and fsynced.
 * Returns the bytes written. gzip runs in Node's thread pool, so does zstd where Node has it, lz4 in a worker thread
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
  const { method, level, fs = nodeFileSystem } = options;
  const from = await fs.open(source, OPEN_READ, 0).catch((e) => {
    throw storageError('open file', source, e);
  });
  try {
    if ((await fs.size(from)) < length) {
      throw new StorageError(`file "${source}" is shorter than ${length} bytes`, { path: source });
    }
    const { compress } = await compressorOf(method);
    const to = await openAnew(target, options.mode ?? 0o600, fs);
    try {
      await compress(from, to, length, level === undefined ? { fs } : { level, fs });
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
