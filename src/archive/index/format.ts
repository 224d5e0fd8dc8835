import { createHash } from 'node:crypto';
import { CorruptObjectError } from '../../errors.js';
import { formatLsn, type Lsn, parseLsn } from '../../lsn.js';
import type { TimestampTz } from '../../wal/records/timestamp.js';
import { isEnd, type Mark } from '../way/marks.js';
import { joinXids, packXids, type XidRanges } from './xid-ranges.js';

/** Version of what an object of the WAL index is, docs/wal-index.md. */
export const INDEX_FORMAT = 1;

/** Segments that one object tells of: the numbers of the first are multiples of it. */
export const GROUP = 32;

/** Objects that a joined one has: the number of its first segment is a multiple of so many groups. */
export const JOINED = 32;

/** Times of transactions' ends, commits and aborts, in microseconds since 2000. */
export interface EndTimes {
  first: TimestampTz;
  last: TimestampTz;
  min: TimestampTz;
  max: TimestampTz;
}

/** What the index says of one segment. */
export interface IndexedSegment {
  /** How many transactions end in it. */
  ends: number;
  /** Absent if none does. */
  times?: EndTimes;
  /** The transactions that end in it. */
  xids: XidRanges;
  points: { lsn: Lsn; time: TimestampTz; name: string }[];
  /** Times of checkpoints, and of other records that no recovery stops at. */
  clocks: TimestampTz[];
}

/** An object of the index. */
export interface IndexGroup {
  systemId: bigint;
  timeline: number;
  /** Bytes. */
  segmentSize: number;
  /** LSN of the first of the segments. */
  start: Lsn;
  /** 32; undefined for those before the first that the timeline has. */
  segments: (IndexedSegment | undefined)[];
}

/** What is remembered of the marks of a segment. */
export function indexedSegment(marks: readonly Mark[]): IndexedSegment {
  const ends = marks.filter(isEnd);
  let times: EndTimes | undefined;
  for (const { time } of ends) {
    if (!times) times = { first: time, last: time, min: time, max: time };
    times.last = time;
    if (time < times.min) times.min = time;
    if (time > times.max) times.max = time;
  }
  const points = marks.flatMap((mark) => {
    if (mark.kind !== 'point') return [];
    const { lsn, time, name } = mark;
    return [{ lsn, time, name }];
  });
  return {
    ends: ends.length,
    ...(times ? { times } : {}),
    xids: packXids(ends.map((end) => end.xid)),
    points,
    clocks: marks.flatMap((mark) => (mark.kind === 'clock' ? [mark.time] : [])),
  };
}

/** The same of all marks of two, one behind the other. */
export function joined(a: IndexedSegment, b: IndexedSegment): IndexedSegment {
  const [one, other] = [a.times ?? b.times, b.times ?? a.times];
  const times = one &&
    other && {
      first: one.first,
      last: other.last,
      min: one.min < other.min ? one.min : other.min,
      max: one.max > other.max ? one.max : other.max,
    };
  return {
    ends: a.ends + b.ends,
    ...(times ? { times } : {}),
    xids: joinXids(a.xids, b.xids),
    points: [...a.points, ...b.points],
    clocks: [...a.clocks, ...b.clocks],
  };
}

/** JSON on one line, and behind it a line with the SHA-256 of that line. */
export function indexBytes({
  systemId,
  timeline,
  segmentSize,
  start,
  segments,
}: IndexGroup): Buffer {
  const json = {
    format: INDEX_FORMAT,
    systemId: String(systemId),
    timeline,
    segmentSize,
    start: formatLsn(start),
    segments: segments.map((segment) => {
      if (!segment) return null;
      const { ends, times, xids, points, clocks } = segment;
      return {
        ends,
        ...(times ? { times: [times.first, times.last, times.min, times.max].map(String) } : {}),
        xids,
        points: points.map(({ lsn, time, name }) => [formatLsn(lsn), String(time), name]),
        clocks: clocks.map(String),
      };
    }),
  };
  const text = `${JSON.stringify(json)}\n`;
  return Buffer.from(`${text}sha256 ${createHash('sha256').update(text).digest('hex')}\n`);
}

/** An entry as JSON has it. */
export interface StoredIndexedSegment {
  ends: number;
  times?: [first: string, last: string, min: string, max: string];
  xids: number[];
  points: [lsn: string, time: string, name: string][];
  clocks: string[];
}

/** An object as JSON has it: of thousands only a little of each is of interest. */
export interface StoredIndexGroup extends Omit<IndexGroup, 'segments'> {
  segments: (StoredIndexedSegment | null)[];
}

/** @throws CorruptObjectError for one that is damaged, cut, or of a newer walkeep */
export function parseStoredIndex(bytes: Buffer, key: string): StoredIndexGroup {
  const wrong = (why: string, cause?: unknown) =>
    new CorruptObjectError(`"${key}" is no whole object of the WAL index: ${why}`, {
      ...{ key, hint: 'Remove it; "walkeep index" makes another one.' },
      ...(cause === undefined ? {} : { cause }),
    });
  const cut = bytes.lastIndexOf(0x0a, bytes.length - 2) + 1;
  const sum = /^sha256 ([0-9a-f]{64})\n$/.exec(bytes.toString('latin1', cut))?.[1];
  if (sum === undefined) throw wrong('its last line is no checksum');
  if (createHash('sha256').update(bytes.subarray(0, cut)).digest('hex') !== sum) {
    throw wrong('it is not what its checksum was made of');
  }
  try {
    const { format, ...json } = JSON.parse(bytes.toString('utf8', 0, cut));
    if (format !== INDEX_FORMAT) throw wrong(`its format ${format} is not known here`);
    // Only the types that JSON has not: the checksum says that a walkeep wrote the rest.
    return { ...json, systemId: BigInt(json.systemId), start: parseLsn(json.start) };
  } catch (e) {
    throw e instanceof CorruptObjectError ? e : wrong((e as Error).message, e);
  }
}

/** The objects of a joined one, each as it was, in their order. @throws CorruptObjectError */
export function partsOfJoined(bytes: Buffer, key: string): Buffer[] {
  const parts: Buffer[] = [];
  for (let at = 0; at < bytes.length; ) {
    const line = bytes.indexOf(0x0a, at) + 1;
    const end = line === 0 ? 0 : bytes.indexOf(0x0a, line) + 1;
    if (end === 0) break;
    parts.push(bytes.subarray(at, end));
    at = end;
  }
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  if (parts.length === JOINED && length === bytes.length) return parts;
  throw new CorruptObjectError(`"${key}" is no whole joined object of the WAL index`, {
    ...{ key, hint: 'Remove it; "walkeep index" makes another one.' },
  });
}

/** The same with all it has. */
export function parseIndex(bytes: Buffer, key: string): IndexGroup {
  const group = parseStoredIndex(bytes, key);
  return { ...group, segments: group.segments.map(readSegment) };
}

function readSegment(stored: StoredIndexedSegment | null): IndexedSegment | undefined {
  if (!stored) return undefined;
  const { ends, times, xids, points, clocks } = stored;
  const [first, last, min, max] = (times ?? []).map(timeOf);
  return {
    ends,
    ...(times ? { times: { first, last, min, max } as EndTimes } : {}),
    xids,
    points: points.map(([lsn, at, name]) => ({ lsn: parseLsn(lsn), time: timeOf(at), name })),
    clocks: clocks.map(timeOf),
  };
}

export function timeOf(text: string): TimestampTz {
  return BigInt(text) as TimestampTz;
}
