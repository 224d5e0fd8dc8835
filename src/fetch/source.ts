import fs from 'node:fs';
import { accessError, onArchive } from '../archive/access.js';
import { OPEN_READ } from '../files/file-system.js';
import { WAL_BUFFERS } from '../wal/chunk.js';
import { LONG_HEADER_SIZE } from '../wal/long-header.js';
import type { Source, Staging } from './stage.js';
import type { TargetFile } from './target.js';

/** Memory in which WAL is checked without being copied. */
const buffer = WAL_BUFFERS[0] as Uint8Array;

/** Takes the next bytes, valid during the call. */
type Take = (bytes: Uint8Array) => void;

/**
 * The first bytes of a segment, enough for a long page header unless the file is shorter.
 * @throws ArchiveAccessError, VanishedError
 */
export async function readHead(source: Source): Promise<Uint8Array> {
  const { path, compression } = source;
  if (compression === 'none') return onArchive('read file', path, () => readPlainHead(path));
  const { readFirstPage } = await import('../archive/wal-directory.js');
  return readFirstPage(path, compression).catch((e) => {
    throw accessError('read file', path, e);
  });
}

/** The same of a plain file. @throws the errno error */
export function readPlainHead(path: string): Uint8Array {
  const bytes = new Uint8Array(LONG_HEADER_SIZE);
  const fd = fs.openSync(path, OPEN_READ);
  try {
    return bytes.subarray(0, fs.readSync(fd, bytes));
  } finally {
    fs.closeSync(fd);
  }
}

/**
 * Reads a segment file, decompressed, from `from` on and as far as it can be.
 * @throws ArchiveAccessError, VanishedError, NotSupportedError
 */
export async function readSource(
  source: Source,
  segmentSize: number,
  take: Take,
  from = 0,
): Promise<void> {
  const { path, compression } = source;
  if (compression === 'none') {
    const fd = onArchive('open file', path, () => fs.openSync(path, OPEN_READ));
    try {
      const read = (position: number, length: number) =>
        onArchive('read file', path, () => fs.readSync(fd, buffer, 0, length, position));
      pour(read, from, segmentSize, take);
    } finally {
      fs.closeSync(fd);
    }
    return;
  }
  const { readSegment } = await import('../archive/segment-reader.js');
  let skip = from;
  const pass = (bytes: Uint8Array): boolean => {
    const wanted = bytes.subarray(Math.min(skip, bytes.length));
    skip -= bytes.length - wanted.length;
    if (wanted.length > 0) take(wanted);
    return true;
  };
  await readSegment(path, compression, segmentSize, pass).catch((e) => {
    throw accessError('read file', path, e);
  });
}

/** Reads back what was staged, up to `end`. @throws TargetError */
export function readStaged(file: TargetFile, end: number, take: Take): void {
  pour((position, length) => file.read(buffer, position, length), 0, end, take);
}

/** The same while it is being staged. @throws TargetError */
export async function followStaged(staging: Staging, end: number, take: Take): Promise<void> {
  const { file } = staging;
  for (let at = 0; at < end; ) {
    const there = Math.min(await staging.beyond(at), end);
    if (there <= at) return;
    pour((position, length) => file.read(buffer, position, length), at, there, take);
    at = there;
  }
}

function pour(
  read: (position: number, length: number) => number,
  from: number,
  to: number,
  take: Take,
): void {
  for (let at = from; at < to; ) {
    const n = read(at, Math.min(buffer.length, to - at));
    if (n === 0) return;
    take(buffer.subarray(0, n));
    at += n;
  }
}
