import fs from 'node:fs';
import { Readable } from 'node:stream';
import { decompressFile } from '../codec/codec.js';
import type { DecompressEnd } from '../codec/format.js';
import { storageError } from '../files/durable.js';
import { OPEN_READ } from '../files/file-system.js';
import { walBuffers } from '../wal/chunk.js';
import type { Compression } from '../wal/file-name.js';

/** How reading a segment file went. */
export interface SegmentRead {
  /** Bytes of WAL in the file, decompressed; one more than the limit if there are more. */
  bytes: number;
  /** `stopped`: by the caller. Of a plain file always `complete` otherwise. */
  end: Exclude<DecompressEnd, 'limit'> | 'stopped';
  /** What is damaged. */
  problem?: string;
  /** Something that is not of the format follows the compressed content. */
  trailingGarbage: boolean;
}

/** Takes the next bytes, valid during the call. False: no more are wanted. */
export type TakeBytes = (bytes: Uint8Array) => boolean;

class Stop extends Error {}

/** Reading synchronously never meets another reader of this thread; reading ahead may. */
const syncBuffer = () => walBuffers()[0]!;
const aheadBuffers = () => walBuffers().slice(1);

/**
 * Reads a segment file from its start, decompressed, up to `limit` bytes and the knowledge whether
 * there are more. Plain files are read synchronously unless `readAhead` is set.
 * @throws StorageError
 */
export async function readSegment(
  path: string,
  compression: Compression,
  limit: number,
  take: TakeBytes,
  options: { readAhead?: boolean } = {},
): Promise<SegmentRead> {
  if (compression === 'none') {
    return options.readAhead ? readPlainAhead(path, limit, take) : readPlain(path, limit, take);
  }
  let delivered = 0;
  try {
    const { bytes, end, problem, trailingGarbage } = await decompressFile(
      path,
      compression,
      (chunk) => {
        const wanted =
          delivered + chunk.length > limit ? chunk.subarray(0, limit - delivered) : chunk;
        delivered += wanted.length;
        if (wanted.length > 0 && !take(wanted)) throw new Stop();
      },
      { limit: limit + 1 },
    );
    return {
      bytes,
      end: end === 'limit' ? 'complete' : end,
      trailingGarbage,
      ...(problem === undefined ? {} : { problem }),
    };
  } catch (e) {
    if (e instanceof Stop) return { bytes: delivered, end: 'stopped', trailingGarbage: false };
    throw e;
  }
}

function readPlain(path: string, limit: number, take: TakeBytes): SegmentRead {
  const buffer = syncBuffer();
  const fd = io(path, () => fs.openSync(path, OPEN_READ));
  try {
    let bytes = 0;
    while (bytes < limit) {
      const length = Math.min(buffer.length, limit - bytes);
      const n = io(path, () => fs.readSync(fd, buffer, 0, length, bytes));
      if (n === 0) return { bytes, end: 'complete', trailingGarbage: false };
      bytes += n;
      if (!take(buffer.subarray(0, n))) return { bytes, end: 'stopped', trailingGarbage: false };
    }
    const { size } = io(path, () => fs.fstatSync(fd));
    return { bytes: Math.min(size, limit + 1), end: 'complete', trailingGarbage: false };
  } finally {
    fs.closeSync(fd);
  }
}

function io<T>(path: string, call: () => T): T {
  try {
    return call();
  } catch (e) {
    throw storageError('read file', path, e);
  }
}

/** Pending while the buffers are in use for another file. */
let busy = Promise.resolve();

/**
 * The same, but while one piece is being checked the next one is read in the thread pool, which
 * pays where a core is free for it. What is short is synchronous: a turn of the pool costs more.
 */
async function readPlainAhead(path: string, limit: number, take: TakeBytes): Promise<SegmentRead> {
  const before = busy;
  let release = (): void => {};
  busy = new Promise((resolve) => {
    release = resolve;
  });
  await before;
  let fd: number | undefined;
  let ahead: Promise<number> | undefined;
  try {
    const reader = io(path, () => fs.openSync(path, OPEN_READ));
    fd = reader;
    let bytes = 0;
    const buffers = aheadBuffers();
    for (let turn = 0; bytes < limit; turn++) {
      const buffer = buffers[turn % buffers.length]!;
      const length = Math.min(buffer.length, limit - bytes);
      const current = ahead;
      const spare = buffers[(turn + 1) % buffers.length]!;
      ahead = readInPool(path, reader, spare, bytes + length, limit);
      const n = current ? await current : io(path, () => fillSync(reader, buffer, length, bytes));
      bytes += n;
      if (n > 0 && !take(buffer.subarray(0, n))) {
        return { bytes, end: 'stopped', trailingGarbage: false };
      }
      // Shorter than asked for: the file ends here. One that grows meanwhile counts as it was read.
      if (n < length) return { bytes, end: 'complete', trailingGarbage: false };
    }
    const { size } = io(path, () => fs.fstatSync(reader));
    return { bytes: Math.min(size, limit + 1), end: 'complete', trailingGarbage: false };
  } finally {
    // What is still being read must not land in a buffer that others use, nor in another file's.
    await ahead?.catch(() => {});
    if (fd !== undefined) fs.closeSync(fd);
    release();
  }
}

/** Begins to fill the buffer with what is at `position`; undefined if that is at the limit. */
function readInPool(
  path: string,
  fd: number,
  buffer: Uint8Array,
  position: number,
  limit: number,
): Promise<number> | undefined {
  const length = Math.min(buffer.length, limit - position);
  if (length <= 0) return undefined;
  const read = fill(fd, buffer, length, position).catch((e) => {
    throw storageError('read file', path, e);
  });
  // If the piece before it fails, nobody waits for this one.
  read.catch(() => {});
  return read;
}

/** Reads up to `length` bytes at `position`, less only at the end of the file. */
function fillSync(fd: number, buffer: Uint8Array, length: number, position: number): number {
  let have = 0;
  for (let n = -1; n !== 0 && have < length; have += n) {
    n = fs.readSync(fd, buffer, have, length - have, position + have);
  }
  return have;
}

/** The same in the thread pool. */
function fill(fd: number, buffer: Uint8Array, length: number, position: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const next = (have: number): void =>
      fs.read(fd, buffer, have, length - have, position + have, (error, n) => {
        if (error) reject(error);
        else if (n === 0 || have + n === length) resolve(have + n);
        else next(have + n);
      });
    next(0);
  });
}

/** The bytes of a segment file as an iterable, for a caller that reads two files side by side. */
export async function* segmentBytes(
  path: string,
  compression: Compression,
  limit: number,
): AsyncGenerator<Uint8Array> {
  let wake = (): void => {};
  const out = new Readable({
    highWaterMark: 1,
    read: () => wake(),
    destroy: (error, done) => {
      wake();
      done(error);
    },
  });
  const pass = async (chunk: Uint8Array): Promise<void> => {
    const room = new Promise<void>((resolve) => {
      wake = resolve;
    });
    if (!out.destroyed && !out.push(Buffer.from(chunk))) await room;
    if (out.destroyed) throw new Stop();
  };
  decompressFile(path, compression, pass, { limit }).then(
    () => out.push(null),
    (error) => out.destroy(error instanceof Stop ? undefined : error),
  );
  yield* out;
}
