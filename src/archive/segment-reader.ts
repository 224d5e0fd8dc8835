import fs from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { type DecompressEnd, decompressFile } from '../storage/codec.js';
import { storageError } from '../storage/durable.js';
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

/** Bytes a read; WAL stays in the CPU's cache between being read and being checked. */
const READ_SIZE = 256 * 1024;
/** One for the thread: calls for plain files do not overlap in it. */
const buffer = new Uint8Array(READ_SIZE);

class Stop extends Error {}

/**
 * Reads a segment file from its start, decompressed, up to `limit` bytes and the knowledge whether
 * there are more. Plain files are read synchronously: this is for worker threads.
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

function readPlain(path: string, limit: number, take: TakeBytes): SegmentRead {
  let fd: number | undefined;
  try {
    fd = fs.openSync(path, 'r');
    let bytes = 0;
    while (bytes < limit) {
      const n = fs.readSync(fd, buffer, 0, Math.min(READ_SIZE, limit - bytes), bytes);
      if (n === 0) return { bytes, end: 'complete', trailingGarbage: false };
      bytes += n;
      if (!take(buffer.subarray(0, n))) return { bytes, end: 'stopped', trailingGarbage: false };
    }
    const { size } = fs.fstatSync(fd);
    return { bytes: Math.min(size, limit + 1), end: 'complete', trailingGarbage: false };
  } catch (e) {
    throw storageError('read file', path, e);
  } finally {
    if (fd !== undefined) fs.closeSync(fd);
  }
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
