import { join } from 'node:path';
import { decompressFile } from '../codec/codec.js';
import { CODECS } from '../codec/codecs.js';
import { storageError } from '../files/durable.js';
import {
  type DirectoryEntry,
  type FileSystem,
  nodeFileSystem,
  OPEN_READ,
} from '../files/file-system.js';
import { parseStoredName, type SegmentName } from '../wal/file-name.js';
import {
  type HistoryFile,
  type Listing,
  type SegmentFile,
  segmentFiles,
  sortOut,
} from './listing.js';

/** What a receiving directory holds. */
export interface DirectoryScan {
  directory: string;
  segmentSize: number;
  /** Every segment file, newest first: segment, then timeline, then complete before partial. */
  segments: SegmentFile[];
  /** Lowest timeline first. */
  histories: HistoryFile[];
  /** The first usable one of `segments`: streaming starts behind it, or at its start if partial. */
  newest: SegmentFile | undefined;
  /**
   * All files of the newest usable segment number, `newest` first, whatever their timeline,
   * compression or problem.
   */
  atNewest: SegmentFile[];
  /** Complete files that are links which lead to no file now, newest first. */
  lostLinks: SegmentFile[];
  /** For the operator, in pg_receivewal's words. */
  warnings: string[];
}

/**
 * Lists a receiving directory and finds where streaming goes on. Names alone decide the order, and
 * files are opened from the newest down until one is usable: an archive with 100,000 files costs
 * one readdir. `check: 'all'` looks at every file, as a check of the whole directory wants;
 * `usable` says no to files from which streaming cannot go on.
 * @throws StorageError if the directory or a candidate cannot be read
 */
export async function scanDirectory(
  directory: string,
  segmentSize: number,
  options: {
    check?: 'newest' | 'all';
    usable?: (file: SegmentName) => boolean;
    fs?: FileSystem;
  } = {},
): Promise<DirectoryScan> {
  const { fs = nodeFileSystem } = options;
  const { segments: names, histories, strays, lost } = await list(directory, fs);
  const segments = segmentFiles(names, segmentSize);
  const irregular = strays.filter(({ kind }) => kind === 'irregular');
  const warnings = irregular.map(({ name }) => `"${name}" is not a regular file, skipping`);
  let newest: SegmentFile | undefined;
  for (const file of segments) {
    if (options.usable?.(file) === false && options.check !== 'all') continue;
    const warning = await checkSegment(directory, file, segmentSize, fs);
    if (warning !== undefined) warnings.push(warning);
    else if (options.usable?.(file) !== false) newest ??= file;
    if (newest && options.check !== 'all') break;
  }
  const atNewest = newest
    ? segments.filter((s) => s !== newest && s.segment === newest.segment)
    : [];
  if (newest) atNewest.unshift(newest);
  const lostLinks = segmentFiles(lost, segmentSize);
  return { directory, segmentSize, segments, histories, newest, atNewest, lostLinks, warnings };
}

/** The segment files of a directory, newest first, with nothing read of them. @throws StorageError */
export async function listSegments(
  directory: string,
  segmentSize: number,
  fs: FileSystem = nodeFileSystem,
): Promise<SegmentFile[]> {
  return segmentFiles((await list(directory, fs)).segments, segmentSize);
}

/**
 * What a receiver can go on with. A partial that is a link is not: it would be written to, outside of
 * the directory.
 */
async function list(directory: string, fs: FileSystem): Promise<Listing & { lost: string[] }> {
  const entries = await fs.readdir(directory).catch((e) => {
    throw storageError('open directory', directory, e);
  });
  const lost: string[] = [];
  const own = entries.map((entry): DirectoryEntry => {
    const { name, kind, linked } = entry;
    const stored = parseStoredName(name);
    const isSegment = stored?.kind === 'segment';
    if (kind === 'link' && isSegment && !stored.partial) lost.push(name);
    const isWritten = linked && isSegment && stored.partial;
    return stored && (kind === 'link' || isWritten) ? { name, kind: 'other' } : entry;
  });
  return { ...sortOut(own), lost: lost.sort() };
}

/**
 * Checks that a complete file holds exactly one segment: plain by its size, gzip by the length that
 * it ends with, the others by decompressing. Partial files are not measured. Sets
 * `size` and `problem` of the file; the text returned is the warning, undefined if all is well.
 * @throws StorageError if the file cannot be read
 */
export async function checkSegment(
  directory: string,
  file: SegmentFile,
  segmentSize: number,
  fs: FileSystem = nodeFileSystem,
): Promise<string | undefined> {
  const path = join(directory, file.name);
  const { size, last4 } = await measure(path, fs);
  file.size = size;
  if (file.partial) return undefined;
  if (file.compression === 'none') {
    if (size === segmentSize) return undefined;
    file.problem = 'incorrect size';
    return `segment file "${file.name}" has incorrect size ${size}, skipping`;
  }
  let actual = CODECS[file.compression].contentSize?.(size, last4);
  if (actual === undefined) {
    const result = await decompressFile(path, file.compression, undefined, {
      limit: segmentSize + 1,
      fs,
    });
    actual = result.bytes;
    if (result.end === 'damaged') {
      file.problem = 'damaged';
      return `could not decompress file "${file.name}": ${result.problem}, skipping`;
    }
  }
  if (actual === segmentSize) return undefined;
  file.problem = 'incorrect size';
  return `compressed segment file "${file.name}" has incorrect uncompressed size ${actual}, skipping`;
}

/** Size of a file, and its last four bytes as a little-endian number (0 for a shorter file). */
async function measure(path: string, fs: FileSystem): Promise<{ size: number; last4: number }> {
  try {
    const fd = await fs.open(path, OPEN_READ, 0);
    try {
      const size = await fs.size(fd);
      const tail = Buffer.alloc(4);
      if (size >= 4) await fs.read(fd, tail, 4, size - 4);
      return { size, last4: tail.readUInt32LE() };
    } finally {
      await fs.close(fd);
    }
  } catch (e) {
    throw storageError('read file', path, e);
  }
}
