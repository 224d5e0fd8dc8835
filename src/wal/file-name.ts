import { ParseError } from '../errors.js';
import type { Lsn } from '../lsn.js';

/** Bounds of wal_segment_size in bytes (access/xlog_internal.h: WalSegMinSize, WalSegMaxSize). */
export const MIN_SEGMENT_SIZE = 1024 * 1024;
export const MAX_SEGMENT_SIZE = 1024 * 1024 * 1024;

/** True for a power of two between 1 MB and 1 GB: what initdb --wal-segsize allows. */
export function isValidSegmentSize(bytes: number): boolean {
  return (
    Number.isInteger(bytes) &&
    bytes >= MIN_SEGMENT_SIZE &&
    bytes <= MAX_SEGMENT_SIZE &&
    (bytes & (bytes - 1)) === 0
  );
}

/**
 * What a name ends with; the suffixes are pg_receivewal's, `.zst` is ours. Best first: compressed
 * files come from plain ones, so that who looks in this order misses none, and zstd is what takes
 * longest where Node.js has none of its own. How each is read and written stands in codec/codecs.ts.
 */
const SUFFIX = {
  none: '',
  gzip: '.gz',
  lz4: '.lz4',
  zstd: '.zst',
} as const;

/** How a stored segment is compressed. */
export type Compression = keyof typeof SUFFIX;

/** Whatever a segment can be stored as, the best to read first. */
export const COMPRESSIONS = Object.keys(SUFFIX) as readonly Compression[];

/** The file name suffix of a compression method. */
export function compressionSuffix(compression: Compression): string {
  return SUFFIX[compression];
}

/** Best to read first, as COMPRESSIONS has them: the order of two files that hold the same. */
export function byCompression(a: Compression, b: Compression): number {
  return COMPRESSIONS.indexOf(a) - COMPRESSIONS.indexOf(b);
}

/** The name under which a segment is stored in one form. */
export function storedName(base: string, compression: Compression, partial: boolean): string {
  return base + SUFFIX[compression] + (partial ? '.partial' : '');
}

/** The names under which a segment can be stored, the best to read first. */
export function storedNames(base: string, partial: boolean): string[] {
  return COMPRESSIONS.map((compression) => storedName(base, compression, partial));
}

/** A name under which a segment can be stored, with what it says of the content. */
export interface StoredForm {
  name: string;
  compression: Compression;
}

/** The same, with what each name says of the content. */
export function storedForms(base: string, partial: boolean): StoredForm[] {
  return COMPRESSIONS.map((compression) => ({
    name: storedName(base, compression, partial),
    compression,
  }));
}

/** One WAL segment file as its name tells it. */
export interface SegmentName {
  /** Timeline ID, 1 to 2^32-1. */
  timeline: number;
  /** Segment number: LSN divided by the segment size. */
  segment: bigint;
  compression: Compression;
  partial: boolean;
}

const hex8 = (n: number | bigint) => n.toString(16).toUpperCase().padStart(8, '0');

/** Number of the segment that holds `lsn` (XLByteToSeg). */
export function segmentOf(lsn: bigint, segmentSize: number): bigint {
  return lsn / BigInt(segmentSize);
}

/** LSN of the first byte of a segment (XLogSegNoOffsetToRecPtr with offset 0). */
export function segmentStart(segment: bigint, segmentSize: number): Lsn {
  return (segment * BigInt(segmentSize)) as Lsn;
}

/** Byte offset of `lsn` inside its segment (XLogSegmentOffset). */
export function segmentOffset(lsn: bigint, segmentSize: number): number {
  return Number(lsn & BigInt(segmentSize - 1));
}

/** `lsn` rounded down to the start of its segment. */
export function floorToSegment(lsn: bigint, segmentSize: number): Lsn {
  return (lsn & ~BigInt(segmentSize - 1)) as Lsn;
}

/**
 * `TTTTTTTTXXXXXXXXYYYYYYYY`: timeline, and the segment number split at 4 GB of WAL
 * (XLogFileName).
 */
export function segmentFileName(timeline: number, segment: bigint, segmentSize: number): string {
  const perId = 0x1_0000_0000n / BigInt(segmentSize);
  return hex8(timeline) + hex8(segment / perId) + hex8(segment % perId);
}

/** A segment in any form: plain, partial, compressed, or both. */
const SEGMENT = new RegExp(
  `^(([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8}))(${Object.values(SUFFIX).join('|').replaceAll('.', '\\.')})(\\.partial)?$`,
);
/** `NAME.OFFSET.backup`: what PostgreSQL archives about a base backup (BackupHistoryFileName). */
const BACKUP_HISTORY = /^(([0-9A-F]{8})[0-9A-F]{16})\.[0-9A-F]{8}\.backup$/;
const HISTORY = /^([0-9A-F]{8})\.history$/;
/** A segment's or history file's name with more behind it. */
const EXTENDED = /^([0-9A-F]{24}|[0-9A-F]{8}\.history)./;

/**
 * Reads a segment file name with any of the suffixes that pg_receivewal or walkeep gives.
 * Undefined if it is not one, or if its last eight digits cannot occur with this segment size.
 */
export function parseSegmentFileName(name: string, segmentSize: number): SegmentName | undefined {
  const m = SEGMENT.exec(name);
  if (!m) return undefined;
  const perId = 0x1_0000_0000n / BigInt(segmentSize);
  const low = BigInt(`0x${m[4]}`);
  if (low >= perId) return undefined;
  return {
    timeline: Number.parseInt(m[2] as string, 16),
    segment: BigInt(`0x${m[3]}`) * perId + low,
    compression: compressionOf(m[5] as string),
    partial: m[6] !== undefined,
  };
}

function compressionOf(suffix: string): Compression {
  return COMPRESSIONS.find((c) => SUFFIX[c] === suffix) as Compression;
}

/** What a name in an archive says, whatever the segment size is. */
export type StoredName = {
  /** Timeline in the name. */
  timeline: number;
  /** The 24 digits of a segment, also of one that a backup history file names; else the whole name. */
  base: string;
} & (
  | { kind: 'segment'; compression: Compression; partial: boolean }
  /** `backup`: a backup history file. */
  | { kind: 'history' | 'backup' }
);

/** Reads the name of what belongs into an archive; undefined for all others. */
export function parseStoredName(name: string): StoredName | undefined {
  const timelineOf = (digits: string | undefined) => Number.parseInt(digits as string, 16);
  const segment = SEGMENT.exec(name);
  if (segment) {
    const [, base = '', timeline, , , suffix = '', partial] = segment;
    const form = { compression: compressionOf(suffix), partial: partial !== undefined };
    return { kind: 'segment', timeline: timelineOf(timeline), base, ...form };
  }
  const history = HISTORY.exec(name);
  if (history) return { kind: 'history', timeline: timelineOf(history[1]), base: name };
  const backup = BACKUP_HISTORY.exec(name);
  if (!backup) return undefined;
  return { kind: 'backup', timeline: timelineOf(backup[2]), base: backup[1] as string };
}

/** `TTTTTTTT.history` (TLHistoryFileName). */
export function historyFileName(timeline: number): string {
  return `${hex8(timeline)}.history`;
}

/** The timeline of a history file name, or undefined if it is not one. */
export function parseHistoryFileName(name: string): number | undefined {
  const m = HISTORY.exec(name);
  return m ? Number.parseInt(m[1] as string, 16) : undefined;
}

/**
 * The segment's or history file's name with which a name begins whose end says nothing to us:
 * `F` of `F.xz`, `F.age` and `F.partial.gz`, `T.history` of `T.history.gz`. Its content cannot be
 * read, and the file is not "not there". Undefined for all other names.
 */
export function unreadableFormOf(name: string): string | undefined {
  const begin = EXTENDED.exec(name)?.[1];
  return begin === undefined || parseStoredName(name) ? undefined : begin;
}

/** Reads `16MB`, `1GB` as SHOW wal_segment_size prints it, into bytes. @throws ParseError */
export function parseSegmentSize(text: string): number {
  const m = /^(\d+)(kB|MB|GB)$/.exec(text);
  const unit = m?.[2] === 'GB' ? 1024 ** 3 : m?.[2] === 'MB' ? 1024 ** 2 : 1024;
  const bytes = m ? Number(m[1]) * unit : Number.NaN;
  if (!isValidSegmentSize(bytes)) {
    throw new ParseError(`remote server reported invalid WAL segment size (${text})`, {
      detail: 'The WAL segment size must be a power of two between 1 MB and 1 GB.',
    });
  }
  return bytes;
}
