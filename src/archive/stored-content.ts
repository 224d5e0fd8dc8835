import { type DecompressResult, decompressFile } from '../codec/codec.js';
import { NotSupportedError } from '../errors.js';
import { storageError } from '../files/durable.js';
import { type FileSystem, OPEN_EXISTING } from '../files/file-system.js';
import type { Compression } from '../wal/file-name.js';

/** A file of a segment, in whatever form. */
export interface StoredFile {
  path: string;
  compression: Compression;
}

const STEP = 256 * 1024;

/**
 * How much WAL a plain partial holds: the bytes up to its last one that is not zero; 0 if it is not
 * there. Behind them a stream that began further back may not have come yet: where it stands says
 * nothing of what the file holds. @throws StorageError
 */
export async function contentLength(path: string, fs: FileSystem): Promise<number> {
  if (fs.sizeSync(path) === undefined) return 0;
  const fd = await openPlain(path, fs);
  try {
    const buffer = Buffer.alloc(STEP);
    for (let end = await fs.size(fd); end > 0; ) {
      const begin = Math.max(0, end - STEP);
      await readFully(fs, fd, buffer.subarray(0, end - begin), begin);
      const used = lengthWithoutZeros(buffer.subarray(0, end - begin));
      if (used > 0) return begin + used;
      end = begin;
    }
    return 0;
  } catch (e) {
    throw storageError('read file', path, e);
  } finally {
    await fs.close(fd);
  }
}

/** How the content of a file lies in a plain one, of which what is not there counts as zeros. */
export interface ContentComparison {
  /** Bytes of the file up to its last one that is not zero. */
  length: number;
  /** Offsets of the first and the last byte below that differ; absent if the plain one has it all. */
  first?: number;
  last?: number;
  /** How reading it ended. */
  end: DecompressResult['end'];
}

/**
 * Compares the first `limit` bytes of a file with a plain one, piece by piece: a segment may have a
 * gigabyte. @throws StorageError, NotSupportedError if the other file cannot be read
 */
export async function compareContent(
  plain: string,
  other: StoredFile,
  limit: number,
  fs: FileSystem,
): Promise<ContentComparison> {
  const fd = fs.sizeSync(plain) === undefined ? undefined : await openPlain(plain, fs);
  const found: ContentComparison = { length: 0, end: 'complete' };
  let stored = Buffer.alloc(STEP);
  let at = 0;
  /** Differences in zeros that are perhaps only what the file is filled up with. */
  let zeros: { first: number; last: number } | undefined;
  const differs = (first: number, last: number): void => {
    found.first ??= first;
    found.last = last;
  };
  const compare = async (chunk: Uint8Array): Promise<void> => {
    if (stored.length < chunk.length) stored = Buffer.alloc(chunk.length);
    const mine = stored.subarray(0, chunk.length).fill(0);
    if (fd !== undefined) {
      await readFully(fs, fd, mine, at).catch((e) => {
        throw storageError('read file', plain, e);
      });
    }
    const used = lengthWithoutZeros(chunk);
    if (used > 0) {
      if (zeros) differs(zeros.first, zeros.last);
      zeros = undefined;
      found.length = at + used;
    }
    if (!mine.equals(chunk)) {
      for (let i = 0; i < chunk.length; i++) {
        if (chunk[i] === mine[i]) continue;
        if (i < used) differs(at + i, at + i);
        else zeros = { first: zeros?.first ?? at + i, last: at + i };
      }
    }
    at += chunk.length;
  };
  try {
    const result = await decompressFile(other.path, other.compression, compare, { limit, fs });
    return { ...found, end: result.end };
  } finally {
    if (fd !== undefined) await fs.close(fd);
  }
}

/**
 * True if a plain file has all that can be read of another one: only then may that one be removed
 * or replaced. @throws StorageError
 */
export async function hasAllOf(
  plain: string,
  other: StoredFile,
  segmentSize: number,
  fs: FileSystem,
): Promise<boolean> {
  try {
    // One byte more: what is longer than a segment is none.
    const { first, end } = await compareContent(plain, other, segmentSize + 1, fs);
    return first === undefined && (end === 'complete' || end === 'cut');
  } catch (e) {
    if (e instanceof NotSupportedError) return false;
    throw e;
  }
}

/** Bytes up to the last one that is not zero. */
export function lengthWithoutZeros(bytes: Uint8Array): number {
  let end = bytes.length;
  while (end > 0 && bytes[end - 1] === 0) end -= 1;
  return end;
}

function openPlain(path: string, fs: FileSystem): Promise<number> {
  return fs.open(path, OPEN_EXISTING, 0).catch((e) => {
    throw storageError('open file', path, e);
  });
}

/** Reads as much of `into` as the file has. */
export async function readFully(
  fs: FileSystem,
  fd: number,
  into: Uint8Array,
  position: number,
): Promise<void> {
  for (let done = 0; done < into.length; ) {
    const n = await fs.read(fd, into.subarray(done), into.length - done, position + done);
    if (n === 0) return;
    done += n;
  }
}
