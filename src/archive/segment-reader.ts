import fs from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { type DecompressEnd, decompressFile } from '../storage/codec.js';
import { storageError } from '../storage/durable.js';
import { WAL_BUFFERS } from '../wal/chunk.js';
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

/**
 * Reads a segment file from its start, decompressed, up to `limit` bytes and the knowledge whether
 * there are more.
 * @throws StorageError, NotSupportedError for zstd before Node.js 22.15
 */
export async function readSegment(
  path: string,
  compression: Compression,
  limit: number,
  take: TakeBytes,
): Promise<SegmentRead> {
  if (compression === 'none') return readPlain(path, limit, take);
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

/** Set while the thread's buffers are in use by another file. */
let busy = Promise.resolve();

/** Reads ahead: while one buffer is being checked, the next one is filled in the thread pool. */
async function readPlain(path: string, limit: number, take: TakeBytes): Promise<SegmentRead> {
  const before = busy;
  let release = (): void => {};
  busy = new Promise((resolve) => {
    release = resolve;
  });
  await before;
  const failed = (e: unknown): never => {
    throw storageError('read file', path, e);
  };
  let handle: FileHandle | undefined;
  let reading: Promise<number> | undefined;
  try {
    handle = await open(path, 'r').catch(failed);
    let bytes = 0;
    reading = fill(handle.fd, 0, limit);
    for (let turn = 0; bytes < limit; turn++) {
      const n = await reading.catch(failed);
      if (n === 0) return { bytes, end: 'complete', trailingGarbage: false };
      bytes += n;
      reading = fill(handle.fd, bytes, limit, turn + 1);
      const more = take(WAL_BUFFERS[turn % WAL_BUFFERS.length]!.subarray(0, n));
      if (!more) return { bytes, end: 'stopped', trailingGarbage: false };
    }
    const { size } = await handle.stat().catch(failed);
    return { bytes: Math.min(size, limit + 1), end: 'complete', trailingGarbage: false };
  } finally {
    // What is still being read must not land in a buffer that others use, nor in another file's.
    await reading?.catch(() => {});
    await handle?.close();
    release();
  }
}

/** Fills a buffer from `position` on; resolves with the bytes there were, 0 at the end. */
function fill(fd: number, position: number, limit: number, turn = 0): Promise<number> {
  const buffer = WAL_BUFFERS[turn % WAL_BUFFERS.length]!;
  const length = Math.min(buffer.length, limit - position);
  return new Promise((resolve, reject) => {
    if (length === 0) resolve(0);
    else fs.read(fd, buffer, 0, length, position, (e, n) => (e ? reject(e) : resolve(n)));
  });
}

/** The same bytes as an iterable, for a caller that reads two files side by side. */
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

/** What a running receiver may have made of a file since it was listed. */
const LATER_NAMES = ['', '.gz', '.lz4', '.zst'];

/** The name under which a segment is there now: a receiver completes and compresses files. */
export function currentFile(directory: string, name: string): string {
  if (fs.existsSync(join(directory, name))) return name;
  const base = name.slice(0, 24);
  const later = LATER_NAMES.map((suffix) => base + suffix);
  return later.find((candidate) => fs.existsSync(join(directory, candidate))) ?? name;
}
