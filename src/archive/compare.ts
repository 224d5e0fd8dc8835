import { basename } from 'node:path';
import { type DecompressResult, decompressFile } from '../codec/codec.js';
import { readFully, storageError } from '../files/durable.js';
import { type FileSystem, nodeFileSystem, OPEN_OWN } from '../files/file-system.js';
import {
  type Compression,
  isValidSegmentSize,
  parseSegmentFileName,
  segmentStart,
} from '../wal/file-name.js';
import { firstDifference, WalComparison } from '../wal/same-wal.js';
import type { WalVerifier } from '../wal/verifier.js';
import { lengthWithoutZeros } from '../wal/zeros.js';

/** A file of a segment, in whatever form. */
export interface StoredFile {
  path: string;
  compression: Compression;
}

/** Reads plain bytes at a position; gives how many, less than asked for only at the end. */
export type ReadAt = (into: Uint8Array, position: number) => Promise<number>;

/** Bytes that are compared at a time. */
const PIECE = 1024 * 1024;

/** The same stretch of two files. */
interface Stretch {
  /** Of the file that may be compressed. */
  stored: Uint8Array;
  /** Of the plain one; zeros from `have` on, where that ends. */
  plain: Uint8Array;
  have: number;
  /** Where both begin. */
  at: number;
}

/**
 * Hands on the first `limit` bytes of a file piece by piece, a segment may have a gigabyte, and
 * beside them what a plain one has there. @throws StorageError
 */
async function inStep(
  read: ReadAt,
  { path, compression }: StoredFile,
  limit: number,
  take: (stretch: Stretch) => void,
  fs: FileSystem,
): Promise<DecompressResult> {
  const buffer = Buffer.allocUnsafe(Math.min(PIECE, limit));
  let at = 0;
  const compare = async (chunk: Uint8Array): Promise<void> => {
    for (let from = 0; from < chunk.length; from += buffer.length) {
      const stored = chunk.subarray(from, from + buffer.length);
      const plain = buffer.subarray(0, stored.length);
      const have = await read(plain, at);
      plain.fill(0, have);
      take({ stored, plain, have, at });
      at += stored.length;
    }
  };
  return decompressFile(path, compression, compare, { limit, fs });
}

/** The same with a plain file of ours, or with none. */
async function besideFile(
  path: string,
  other: StoredFile,
  limit: number,
  take: (stretch: Stretch) => void,
  fs: FileSystem,
): Promise<DecompressResult> {
  if (fs.sizeSync(path) === undefined) return inStep(async () => 0, other, limit, take, fs);
  const fd = await fs.open(path, OPEN_OWN, 0).catch((e) => {
    throw storageError('open file', path, e);
  });
  const read: ReadAt = (into, position) =>
    readFully(fs, fd, into, position).catch((e) => {
      throw storageError('read file', path, e);
    });
  try {
    return await inStep(read, other, limit, take, fs);
  } finally {
    await fs.close(fd);
  }
}

/**
 * True if a plain segment file of `size` bytes holds the same WAL as another one does.
 * @throws StorageError if one of them cannot be read
 */
export async function sameContent(
  plain: string,
  other: StoredFile,
  size: number,
  fs: FileSystem,
): Promise<boolean> {
  const name = parseSegmentFileName(basename(plain), size);
  if (!name || fs.sizeSync(plain) !== size) return false;
  const startLsn = segmentStart(name.segment, size);
  const comparison = new WalComparison({ startLsn, segmentSize: size });
  let same = true;
  const compare = ({ stored, plain: mine, have }: Stretch): void => {
    same &&= have === stored.length && comparison.feed(mine, stored) === undefined;
  };
  const { bytes, end } = await besideFile(plain, other, size + 1, compare, fs);
  return same && bytes === size && end === 'complete';
}

/**
 * Offset of the first byte at which the first `limit` bytes of a file are other WAL than those of a
 * plain one, of which what is not there counts as zeros; undefined if none is.
 *
 * @param verifier stands where both begin
 * @throws StorageError if one of them cannot be read
 */
export async function firstOtherWal(
  plain: string,
  other: StoredFile & { limit: number },
  verifier: WalVerifier,
  fs: FileSystem,
): Promise<number | undefined> {
  const comparison = new WalComparison(verifier);
  let found: number | undefined;
  const compare = ({ stored, plain: mine, at }: Stretch): void => {
    if (found !== undefined) return;
    const different = comparison.feed(stored, mine);
    if (different !== undefined) found = at + different;
  };
  await besideFile(plain, other, other.limit, compare, fs);
  return found;
}

/**
 * Offset of the first byte at which a stored file has something else than a plain one of `size`
 * bytes, or ends; undefined if it has the same, which for a segment is the same WAL.
 * @throws StorageError if the stored one cannot be read; what `read` throws
 */
export async function firstOtherByte(
  plain: { name: string; size: number; read: ReadAt },
  other: StoredFile,
): Promise<number | undefined> {
  const { size } = plain;
  const differ = differenceIn(plain);
  let same = 0;
  let different: number | undefined;
  const compare = ({ stored, plain: mine, have, at }: Stretch): void => {
    if (different !== undefined) return;
    same = at + (differ(stored, mine.subarray(0, have)) ?? have);
    if (same < at + stored.length) different = same;
  };
  const { end } = await inStep(plain.read, other, size + 1, compare, nodeFileSystem);
  if (different !== undefined) return different;
  return same === size && end === 'complete' ? undefined : same;
}

type Differ = (a: Uint8Array, b: Uint8Array) => number | undefined;

/** What tells the first difference in the next bytes of two copies of a file. */
function differenceIn({ name, size }: { name: string; size: number }): Differ {
  const segment = isValidSegmentSize(size) ? parseSegmentFileName(name, size) : undefined;
  if (segment) {
    const startLsn = segmentStart(segment.segment, size);
    const comparison = new WalComparison({ startLsn, segmentSize: size });
    return (a, b) => comparison.feed(a, b);
  }
  return (a, b) => {
    const length = Math.min(a.length, b.length);
    const at = firstDifference(a, b, 0, length);
    return at < length ? at : undefined;
  };
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
 * Compares the first `limit` bytes of a file with a plain one.
 * @throws StorageError if the other file cannot be read
 */
export async function compareContent(
  plain: string,
  other: StoredFile,
  limit: number,
  fs: FileSystem,
): Promise<ContentComparison> {
  const found: ContentComparison = { length: 0, end: 'complete' };
  /** Differences in zeros that are perhaps only what the file is filled up with. */
  let zeros: { first: number; last: number } | undefined;
  const differs = (first: number, last: number): void => {
    found.first ??= first;
    found.last = last;
  };
  const compare = ({ stored, plain: mine, at }: Stretch): void => {
    const used = lengthWithoutZeros(stored);
    if (used > 0) {
      if (zeros) differs(zeros.first, zeros.last);
      zeros = undefined;
      found.length = at + used;
    }
    if (Buffer.compare(mine, stored) === 0) return;
    for (let i = 0; i < stored.length; i++) {
      if (stored[i] === mine[i]) continue;
      if (i < used) differs(at + i, at + i);
      else zeros = { first: zeros?.first ?? at + i, last: at + i };
    }
  };
  const { end } = await besideFile(plain, other, limit, compare, fs);
  return { ...found, end };
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
  // One byte more: what is longer than a segment is none.
  const { first, end } = await compareContent(plain, other, segmentSize + 1, fs);
  return first === undefined && (end === 'complete' || end === 'cut');
}

/** A copy of a segment, in pieces; at the end of a partial one zeros are no content. */
export interface Copy {
  bytes: AsyncIterable<Uint8Array>;
  partial: boolean;
}

/**
 * Offset of the first byte that is other WAL; undefined if `b` holds what `a` does, or less; `more` if
 * it goes on where `a` ends. @throws what reading one of them throws.
 */
export async function compareCopies(
  original: Copy,
  other: Copy,
  comparison: WalComparison,
): Promise<number | 'more' | undefined> {
  const a = new Pieces(original);
  const b = new Pieces(other);
  try {
    for (let offset = 0; ; ) {
      const x = await a.peek();
      const y = await b.peek();
      if (!x && !y) return undefined;
      const n = Math.min(x?.length ?? 0, y?.length ?? 0);
      const same = x && y ? (comparison.feed(x, y) ?? n) : 0;
      a.skip(same);
      b.skip(same);
      offset += same;
      if (same > 0 && same === n) continue;
      if (await b.isOver()) return undefined;
      return (await a.isOver()) ? 'more' : offset;
    }
  } finally {
    await a.close();
    await b.close();
  }
}

/** The content of a file, of which any part may be taken. */
class Pieces {
  readonly #source: AsyncIterator<Uint8Array>;
  readonly #partial: boolean;
  #rest: Uint8Array | undefined;
  #ended = false;

  constructor({ bytes, partial }: Copy) {
    this.#source = bytes[Symbol.asyncIterator]();
    this.#partial = partial;
  }

  /** What is there of the next chunk; undefined at the end. */
  async peek(): Promise<Uint8Array | undefined> {
    while (!this.#ended && !this.#rest?.length) {
      const next = await this.#source.next();
      this.#ended = next.done === true;
      this.#rest = next.done ? undefined : next.value;
    }
    return this.#rest;
  }

  skip(bytes: number): void {
    this.#rest = this.#rest?.subarray(bytes);
  }

  /** True if nothing but the padding of a partial file is left. */
  async isOver(): Promise<boolean> {
    if (!this.#partial) return false;
    for (let bytes = await this.peek(); bytes; bytes = await this.peek()) {
      if (bytes.some((byte) => byte !== 0)) return false;
      this.skip(bytes.length);
    }
    return true;
  }

  async close(): Promise<void> {
    await this.#source.return?.();
  }
}
