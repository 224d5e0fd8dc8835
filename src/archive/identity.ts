import { join } from 'node:path';
import { decompressFile } from '../codec/codec.js';
import { type FileSystem, nodeFileSystem } from '../files/file-system.js';
import { isValidSegmentSize, MIN_SEGMENT_SIZE, parseSegmentFileName } from '../wal/file-name.js';
import { type LongHeader, parseLongHeader } from '../wal/long-header.js';
import { LONG_PAGE_HEADER, parsePageHeader } from '../wal/page.js';
import type { Archive } from './archive.js';
import type { SegmentFile } from './listing.js';
import type { TakeBytes } from './segment-reader.js';

/**
 * Which cluster an archive is of. Who goes on behind its newest WAL asks that, see `newestIdentity`;
 * who reads all of it asks a sample, see `sampleIdentity`: one stray file must not decide there.
 */

/** The cluster that a directory's WAL is of, and the file that says so. */
export interface Identity extends LongHeader {
  /** Bare file name. */
  file: string;
}

/**
 * Finds out which cluster the newest WAL of a directory is of: the first file, newest first, with a
 * readable long page header tells. Empty files and those that are all zeros say nothing and are
 * passed over. Undefined if no file tells.
 * @throws StorageError if a file cannot be read
 */
export async function newestIdentity(
  { directory, segments }: { directory: string; segments: readonly SegmentFile[] },
  fs: FileSystem = nodeFileSystem,
): Promise<Identity | undefined> {
  for (const { name, compression } of segments) {
    const path = join(directory, name);
    const page = await readFirstPage((limit, take) =>
      decompressFile(path, compression, (bytes) => void take(bytes), { limit, fs }),
    );
    const header = parseLongHeader(page);
    if (header) return { ...header, file: name };
  }
  return undefined;
}

/** What an archive's segments say of the server that wrote them. */
export interface ArchiveIdentity {
  systemId: bigint | undefined;
  /** Bytes. */
  segmentSize: number;
  /** xlp_xlog_blcksz, bytes. */
  blockSize: number | undefined;
  /** xlp_magic. */
  magic: number | undefined;
}

/** How many segments are asked at most; spread over all of them. */
const SAMPLE = 33;
/** PostgreSQL's default, where nothing tells (DEFAULT_XLOG_SEG_SIZE). */
const DEFAULT_SEGMENT_SIZE = 16 * 1024 * 1024;

/**
 * Which cluster an archive is of, as most of a sample of its segments say in their long page
 * headers. `systemId`, where it is known, decides which of them are asked for the rest.
 * Files that cannot be read tell nothing here; whoever needs them will say why.
 */
export async function sampleIdentity(
  archive: Pick<Archive, 'segment'>,
  names: readonly string[],
  systemId?: bigint,
): Promise<ArchiveIdentity> {
  const step = Math.max(1, (names.length - 1) / (SAMPLE - 1));
  const headers: (LongHeader & { magic: number })[] = [];
  let size: number | undefined;
  // From the newest on: where two answers are as frequent, the newer one counts.
  for (let at = names.length - 1; at >= 0; at = at === 0 ? -1 : Math.ceil(at - step)) {
    const name = names[at]!;
    const parsed = parseSegmentFileName(name, MIN_SEGMENT_SIZE);
    if (!parsed) continue;
    const page = await archive
      .segment(name, (file) => readFirstPage((limit, take) => file.read(limit, take)))
      .catch(() => undefined);
    const header = page && parseLongHeader(page);
    if (header) headers.push({ ...header, magic: parsePageHeader(page).magic });
    else if (parsed.compression === 'none') {
      size ??= await archive.segment(name, (file) => file.size()).catch(() => undefined);
    }
  }
  const id = systemId ?? mostFrequent(headers.map((h) => h.systemId));
  const own = headers.filter((h) => h.systemId === id);
  const fallback = size !== undefined && isValidSegmentSize(size) ? size : DEFAULT_SEGMENT_SIZE;
  return {
    systemId: id,
    segmentSize: mostFrequent(own.map((h) => h.segmentSize)) ?? fallback,
    blockSize: mostFrequent(own.map((h) => h.blockSize)),
    magic: mostFrequent(own.map((h) => h.magic)),
  };
}

/**
 * The first bytes of a segment, decompressed: enough for a long page header, less if the file ends
 * before or is damaged. @throws what `read` throws
 */
export async function readFirstPage(
  read: (limit: number, take: TakeBytes) => Promise<unknown>,
): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  await read(LONG_PAGE_HEADER, (bytes) => {
    pieces.push(Buffer.from(bytes));
    return true;
  });
  return Buffer.concat(pieces);
}

/** The first of those that occur most often. */
function mostFrequent<T>(values: readonly T[]): T | undefined {
  const counts = new Map<T, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  let best: T | undefined;
  for (const [value, n] of counts) if (best === undefined || n > counts.get(best)!) best = value;
  return best;
}
