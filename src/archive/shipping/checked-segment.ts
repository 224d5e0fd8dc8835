import { createHash } from 'node:crypto';
import { CorruptWalError, StorageError } from '../../errors.js';
import { formatLsn, type Lsn } from '../../lsn.js';
import { faultToError, type WalEnd } from '../../wal/fault.js';
import { type SegmentName, segmentStart } from '../../wal/file-name.js';
import { LONG_PAGE_HEADER } from '../../wal/page.js';
import type { TimelineHistory } from '../../wal/timeline.js';
import { WalVerifier } from '../../wal/verifier.js';
import { lengthWithoutZeros } from '../../wal/zeros.js';
import type { SeenMarks } from '../index/seen-marks.js';
import type { StoredSegment } from '../segment-source.js';

/** What the WAL of a segment must agree with. */
export interface ExpectedWal {
  systemId: bigint;
  /** Bytes. */
  segmentSize: number;
  /** Of the segment's timeline; undefined where no history tells. */
  history: TimelineHistory | undefined;
}

/** WAL that was checked, in memory, to be stored elsewhere. */
export interface CheckedWal {
  /** The 24 digits of its segment. */
  name: string;
  timeline: number;
  start: Lsn;
  /** Behind its last byte. */
  end: Lsn;
  bytes: Uint8Array;
  /** SHA-256 of the bytes with the undefined ones zeroed, in hex. */
  digest: string;
  /** None of the bytes is undefined: the digest is theirs as they are. */
  defined: boolean;
  /** What of it the WAL index wants, where that was noted. */
  seen?: SeenMarks | undefined;
}

/** A segment file, read and checked whole. */
export interface SegmentContent {
  bytes: Buffer;
  /** Bytes up to the end of the last good record. */
  validLength: number;
  /** How its WAL ends; `damaged` names the fault. */
  walEnd: WalEnd;
  /** From here on the bytes of a whole segment are part of nothing. */
  unusedFrom: number;
  /** Why the file as a file is not a whole segment; undefined if it is. */
  problem: string | undefined;
  seen: SeenMarks | undefined;
  /** SHA-256 of all the bytes as they are, in hex. */
  sha256: string;
}

const ZEROS = new Uint8Array(8192);

/** xlp_rem_len, see wal/page.ts. */
const REMAINING_AT = 16;

/**
 * Reads and checks a file of a segment, from its start, each by itself as `push` does: page headers,
 * cluster, timeline, every record that lies in it.
 * @param into has room for `limit` bytes, those that are wanted of it
 * @param seen notes the marks meanwhile
 * @throws StorageError, NotSupportedError if it cannot be read
 */
export async function readChecked(
  file: StoredSegment,
  segment: SegmentName,
  { systemId, segmentSize, history }: ExpectedWal,
  into: Buffer,
  limit = segmentSize,
  seen?: SeenMarks,
): Promise<SegmentContent> {
  const start = segmentStart(segment.segment, segmentSize);
  const { timeline } = segment;
  const options = { startLsn: start, segmentSize, timeline, history, systemId };
  const verifier = seen?.verifier(options) ?? new WalVerifier(options);
  // No tail that belongs to nothing begins behind here: records begin at multiples of 8.
  const lastWord = segmentSize - 8;
  let at = 0;
  let unusedFrom = segmentSize;
  const hash = createHash('sha256');
  const take = (chunk: Uint8Array): boolean => {
    into.set(chunk, at);
    hash.update(chunk);
    const border = Math.min(Math.max(lastWord - at, 0), chunk.length);
    verifier.feed(chunk, 0, border);
    if (at + border === lastWord && verifier.unused === 8) {
      const { validEnd } = verifier;
      // Where the switch record itself began in the segment before, only its rest is in this one.
      const rest = into.readUInt32LE(REMAINING_AT);
      unusedFrom =
        validEnd > start ? Number(validEnd - start) : LONG_PAGE_HEADER + ((rest + 7) & ~7);
    }
    verifier.feed(chunk, border);
    at += chunk.length;
    return true;
  };
  const read = await file.read(limit, take, { readAhead: true });
  const walEnd = verifier.end();
  // The last record of an unfinished segment may end with zeros: its checksum tells.
  verifier.feed(ZEROS, 0, Math.min(ZEROS.length, segmentSize - at));
  return {
    bytes: into.subarray(0, at),
    validLength: Number(verifier.validEnd - start),
    walEnd,
    unusedFrom,
    problem: problemOf(read, segmentSize),
    seen,
    sha256: hash.digest('hex'),
  };
}

function problemOf(
  read: { bytes: number; end: string; problem?: string },
  segmentSize: number,
): string | undefined {
  if (read.end === 'damaged') return `cannot be decompressed: ${read.problem}`;
  if (read.end === 'cut') return 'ends early';
  if (read.bytes === segmentSize) return undefined;
  return `holds ${read.bytes > segmentSize ? 'more than ' : ''}${read.bytes} bytes where a segment has ${segmentSize}`;
}

/**
 * A whole segment as it may be stored elsewhere. Undefined: its timeline ended in it, at one of
 * `forks`, and behind that lies no WAL; it is to be stored as far as it goes.
 * @throws CorruptWalError, SystemIdentifierError, StorageError for what must not be called good
 */
export function wholeSegment(
  content: SegmentContent,
  segment: SegmentName,
  { name, path, segmentSize }: { name: string; path: string; segmentSize: number },
  forks: readonly Lsn[],
): CheckedWal | undefined {
  const { bytes, walEnd, problem, validLength } = content;
  const start = segmentStart(segment.segment, segmentSize);
  const end = segmentStart(segment.segment + 1n, segmentSize);
  if (problem !== undefined) throw new StorageError(`"${path}" ${problem}`, { path });
  const { fault } = walEnd;
  if (fault) {
    const validEnd = start + BigInt(validLength);
    if (fault.kind !== 'system-identifier' && forks.some((f) => f > start && f <= validEnd)) {
      return undefined;
    }
    if (walEnd.kind === 'zeros') {
      throw new CorruptWalError(`the WAL in "${path}" stops at ${formatLsn(validEnd)}`, {
        path,
        lsn: walEnd.lsn,
        hint: 'Put a whole copy of the segment in its place, or take it away.',
      });
    }
    throw faultToError({ ...fault, message: `"${path}": ${fault.message}` });
  }
  const { timeline } = segment;
  return { name, timeline, start, end, bytes, ...canonicalDigest(content), seen: content.seen };
}

/**
 * What is good in an unfinished segment; undefined if nothing is. The begin of a record counts, which
 * may have been acknowledged: what lies behind a fault does not.
 */
export function partialSegment(
  { bytes, walEnd, validLength }: SegmentContent,
  segment: SegmentName,
  name: string,
  segmentSize: number,
): CheckedWal | undefined {
  const start = segmentStart(segment.segment, segmentSize);
  const ends = walEnd.kind === 'torn' || walEnd.kind === 'zeros';
  const length = ends ? Math.max(lengthWithoutZeros(bytes), validLength) : validLength;
  if (length === 0) return undefined;
  const good = Buffer.alloc(length);
  bytes.copy(good, 0, 0, length);
  const end = (start + BigInt(length)) as Lsn;
  const { timeline } = segment;
  const digest = createHash('sha256').update(good).digest('hex');
  return { name, timeline, start, end, bytes: good, digest, defined: true };
}

/** SHA-256 of WAL that is the same for all copies of it: undefined bytes count as zeros. */
export function canonicalDigest({
  bytes,
  unusedFrom,
  sha256,
}: SegmentContent): Pick<CheckedWal, 'digest' | 'defined'> {
  if (unusedFrom >= bytes.length) return { digest: sha256, defined: true };
  const hash = createHash('sha256').update(bytes.subarray(0, unusedFrom));
  for (let left = bytes.length - unusedFrom; left > 0; left -= ZEROS.length) {
    hash.update(ZEROS.subarray(0, Math.min(left, ZEROS.length)));
  }
  return { digest: hash.digest('hex'), defined: false };
}
