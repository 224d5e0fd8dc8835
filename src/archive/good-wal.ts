import { decompressFile } from '../codec/codec.js';
import { readFully, storageError } from '../files/durable.js';
import { type FileSystem, nodeFileSystem, OPEN_OWN, OPEN_READ } from '../files/file-system.js';
import { type SegmentName, segmentStart } from '../wal/file-name.js';
import type { TimelineHistory } from '../wal/timeline.js';
import { WalVerifier } from '../wal/verifier.js';
import { lengthWithoutZeros } from '../wal/zeros.js';
import type { StoredFile } from './compare.js';
import type { SegmentRead, TakeBytes } from './segment-reader.js';

/** What is known of the WAL in a file of a segment. */
export interface KnownWal {
  systemId: bigint;
  /** The ancestors of its timeline; undefined where no history file tells. */
  history: TimelineHistory | undefined;
}

/** How much of a segment a file has, in bytes from the segment's start. */
export interface StoredWal {
  /** Up to the end of the last good record. */
  validLength: number;
  /** Up to the last byte that is not zero: there may be the begin of one more record. */
  contentLength: number;
}

/** Of a stored segment what is needed to look at its WAL. */
export interface ReadableSegment {
  /** Reads it from its start, decompressed, see `readSegment`. @throws StorageError */
  read(limit: number, take: TakeBytes, options?: { readAhead?: boolean }): Promise<SegmentRead>;
}

/** Checks the WAL in a file of a segment. @throws StorageError if it cannot be read */
export async function inspectWal(
  file: ReadableSegment,
  segment: SegmentName,
  segmentSize: number,
  known?: KnownWal,
): Promise<StoredWal> {
  const startLsn = segmentStart(segment.segment, segmentSize);
  const verifier = new WalVerifier({
    startLsn,
    segmentSize,
    timeline: segment.timeline,
    history: known?.history,
    systemId: known?.systemId,
  });
  let at = 0;
  let contentLength = 0;
  const feed = (chunk: Uint8Array): boolean => {
    verifier.feed(chunk);
    const end = lengthWithoutZeros(chunk);
    if (end > 0) contentLength = at + end;
    at += chunk.length;
    return true;
  };
  await file.read(segmentSize, feed, { readAhead: true });
  return { validLength: Number(verifier.validEnd - startLsn), contentLength };
}

/** What a file holds from `from`, or its begin, up to `limit`, in bytes of WAL. */
export interface StoredStretch extends StoredFile {
  from?: number;
  limit: number;
}

/**
 * Feeds a row of files to a verifier, each behind the one before, which then tells how far their WAL
 * is good. What lies behind a fault changes nothing any more: files there are not read.
 * @param look sees what is fed before the verifier does
 * @throws StorageError if one of them cannot be read
 */
export async function feedStored(
  verifier: WalVerifier,
  files: readonly StoredStretch[],
  fs: FileSystem,
  look: (chunk: Uint8Array) => void = () => {},
): Promise<void> {
  for (const { path, compression, from = 0, limit } of files) {
    if (verifier.fault) return;
    let skip = from;
    const feed = (chunk: Uint8Array): void => {
      const cut = Math.min(skip, chunk.length);
      skip -= cut;
      if (cut === chunk.length) return;
      look(chunk.subarray(cut));
      verifier.feed(chunk, cut);
    };
    await decompressFile(path, compression, feed, { limit, fs });
  }
}

/** Bytes read at a time, from the end of a file. */
const STEP = 256 * 1024;

/**
 * Length of a plain file up to its last byte that is not zero. Of a partial that a receiver writes
 * to, in order, all before it is there: what comes while it is read is not, or not all. Behind it a
 * stream that began further back may not have come yet: where that stands says nothing of what the
 * file holds. @throws StorageError
 */
export async function contentEnd(
  path: string,
  fs: FileSystem = nodeFileSystem,
  flags = OPEN_READ,
): Promise<number> {
  const fd = await fs.open(path, flags, 0).catch((e) => {
    throw storageError('read file', path, e);
  });
  try {
    const buffer = Buffer.alloc(STEP);
    for (let end = await fs.size(fd); end > 0; ) {
      const begin = Math.max(0, end - STEP);
      const read = await readFully(fs, fd, buffer.subarray(0, end - begin), begin);
      const used = lengthWithoutZeros(buffer.subarray(0, read));
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

/** The same of a file of ours that may not be there: 0 then. @throws StorageError */
export async function contentLength(path: string, fs: FileSystem): Promise<number> {
  return fs.sizeSync(path) === undefined ? 0 : contentEnd(path, fs, OPEN_OWN);
}
