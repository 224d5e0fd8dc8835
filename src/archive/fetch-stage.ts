import fs from 'node:fs';
import { join } from 'node:path';
import { CorruptWalError } from '../errors.js';
import { type Compression, MAX_SEGMENT_SIZE } from '../wal/file-name.js';
import { ArchiveAccessError, accessError, onArchive, VanishedError } from './fetch-access.js';
import { COMPRESSIONS, storedNames } from './fetch-name.js';
import { TargetFile } from './fetch-target.js';

/** Bytes a read. */
const READ_SIZE = 1024 * 1024;
/** Decompressed bytes up to which gzip is done in one step in memory. */
const ONE_STEP = 64 * 1024 * 1024;

/** A segment file that was found, in the archive or beside the target. */
export interface Source {
  path: string;
  compression: Compression;
  /** Bytes on disk. */
  size: number;
}

/** The files of a segment that are there now, best first. @throws ArchiveAccessError */
export function findSources(directory: string, base: string, partial: boolean): Source[] {
  return storedNames(base, partial).flatMap((name, i) => {
    const path = join(directory, name);
    const stat = onArchive('stat file', path, () => fs.statSync(path, { throwIfNoEntry: false }));
    return stat?.isFile() ? [{ path, compression: COMPRESSIONS[i]!, size: stat.size }] : [];
  });
}

/**
 * Refuses to take a name for absent that is there but is no file: a link to a disk that is not
 * mounted, a fifo. "Not there" would end recovery. @throws ArchiveAccessError
 */
export function refuseIrregular(directory: string, base: string, partial: boolean): void {
  for (const name of storedNames(base, partial)) {
    const path = join(directory, name);
    const stat = onArchive('stat file', path, () => fs.lstatSync(path, { throwIfNoEntry: false }));
    if (!stat || stat.isFile()) continue;
    throw new ArchiveAccessError(`"${path}" is there, but no file that could be read`, {
      path,
      hint: 'See what it is: a link must lead to a file, on a disk that is mounted.',
    });
  }
}

/**
 * Brings the content of a segment file, decompressed and unchecked, beside the target.
 * @param partial it may be growing, and may be cut where its writer ended
 * @throws CorruptWalError if it cannot be decompressed or is larger than any segment
 * @throws ArchiveAccessError, VanishedError, NotSupportedError, TargetError, DiskFullError
 */
export async function stage(source: Source, target: string, partial: boolean): Promise<TargetFile> {
  const file = TargetFile.create(target);
  try {
    if (source.compression !== 'none') await decompress(source, file, partial);
    else if (partial) copyBackwards(source.path, file);
    else {
      requirePlausible(source.path, source.size);
      await file.copy(source.path);
    }
    return file;
  } catch (e) {
    await file.discard();
    throw e;
  }
}

function requirePlausible(path: string, size: number): void {
  if (size <= MAX_SEGMENT_SIZE) return;
  throw new CorruptWalError(`"${path}" is larger than any WAL segment`, { path });
}

/**
 * Copies a plain file that may be growing, piece by piece from its end to its start: what a later
 * piece was seen to hold was written after all that is in the earlier ones, so the whole is a
 * state that the file once had.
 */
function copyBackwards(path: string, file: TargetFile): void {
  const buffer = Buffer.allocUnsafeSlow(READ_SIZE);
  const fd = onArchive('open file', path, () => fs.openSync(path, 'r'));
  try {
    const { size } = onArchive('stat file', path, () => fs.fstatSync(fd));
    requirePlausible(path, size);
    file.resize(size);
    for (let end = size; end > 0; ) {
      const start = Math.max(0, end - READ_SIZE);
      for (let at = start; at < end; ) {
        const n = onArchive('read file', path, () => fs.readSync(fd, buffer, 0, end - at, at));
        // Shortened meanwhile: not the file that was found.
        if (n === 0) throw new VanishedError(path);
        file.write(buffer.subarray(0, n), at);
        at += n;
      }
      end = start;
    }
  } finally {
    fs.closeSync(fd);
  }
}

async function decompress(source: Source, file: TargetFile, partial: boolean): Promise<void> {
  const { path, compression } = source;
  const whole = compression === 'gzip' && !partial ? await gunzipInOneStep(source) : undefined;
  if (whole) {
    file.write(whole, 0);
    file.flush();
    return;
  }
  const { readSegment } = await import('./segment-reader.js');
  let at = 0;
  const take = (bytes: Uint8Array): boolean => {
    file.write(bytes, at);
    at += bytes.length;
    return true;
  };
  const result = await readSegment(path, compression, MAX_SEGMENT_SIZE, take).catch((e) => {
    throw accessError('read file', path, e);
  });
  requirePlausible(path, result.bytes);
  if (result.end !== 'complete' && !partial) {
    const problem = result.problem ?? 'it ends before its end';
    throw new CorruptWalError(`could not decompress "${path}": ${problem}`, { path });
  }
  file.flush();
}

/** What a gzip file of one member says of its content's size (RFC 1952, ISIZE): a hint only. */
function sizeInTrailer(compressed: Buffer): number {
  return compressed.length < 4 ? 0 : compressed.readUInt32LE(compressed.length - 4);
}

/**
 * The content of a gzip file, decompressed in the thread pool: three times as fast as in pieces.
 * Undefined if it is too large or anything is wrong with it, which the careful way then judges.
 */
async function gunzipInOneStep({ path, size }: Source): Promise<Buffer | undefined> {
  if (size > ONE_STEP) return undefined;
  const compressed = onArchive('read file', path, () => fs.readFileSync(path));
  const { gunzip } = await import('node:zlib');
  return new Promise((resolve) => {
    // Room for all of it: otherwise it would be put together from pieces.
    const chunkSize = Math.min(Math.max(sizeInTrailer(compressed), READ_SIZE), ONE_STEP) + 1;
    const options = { maxOutputLength: ONE_STEP, chunkSize };
    gunzip(compressed, options, (error, content) => resolve(error ? undefined : content));
  });
}
