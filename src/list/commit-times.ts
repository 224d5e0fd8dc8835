import type { Catalog, CatalogTimeline, SegmentRange } from '../archive/catalog.js';
import type { SegmentFile } from '../archive/listing.js';
import { WalkeepError } from '../errors.js';
import type { Lsn } from '../lsn.js';
import { WalDecoder, type WalDecoderOptions } from '../wal/decoder.js';
import { segmentStart } from '../wal/file-name.js';
import { parseRecordBody } from '../wal/records/record-body.js';
import type { TimestampTz } from '../wal/records/timestamp.js';
import {
  parseXactRecord,
  RM_XACT,
  XACT_COMMIT,
  XACT_COMMIT_PREPARED,
  XACT_OPMASK,
} from '../wal/records/xact.js';

/** Segments looked at from either end of a range: a commit need not be in the first one. */
const REACH = 4;

/** What the ends of a range of segments say. */
export interface RangeEnds {
  firstCommit?: TimestampTz;
  lastCommit?: TimestampTz;
  /** End of the last complete good record; the range's end if that is where it is. */
  validEnd: Lsn;
  /** Name of the last file if it is a partial one. */
  partial?: string;
}

/** Looks for the commits of a segment: for its first one only, or for all. */
export type CommitScan = (
  catalog: Catalog,
  timeline: CatalogTimeline,
  file: SegmentFile,
  stopAtFirst: boolean,
) => Promise<ScannedCommits>;

/**
 * Looks at the first and last segments of a range for the times of the first and last commit, and
 * how far the WAL in its last segment goes. Files that cannot be read tell nothing.
 */
export async function readRangeEnds(
  catalog: Catalog,
  timeline: CatalogTimeline,
  range: SegmentRange,
  scanFile: CommitScan = scanCommits,
): Promise<RangeEnds> {
  const { segments } = range;
  const scan = (file: SegmentFile, stopAtFirst: boolean) =>
    scanFile(catalog, timeline, file, stopAtFirst);
  let first: TimestampTz | undefined;
  for (let i = 0; i < segments.length && i < REACH && first === undefined; i++) {
    first = (await scan(segments[i]!.files[0]!, true)).first;
  }
  let last: TimestampTz | undefined;
  let validEnd = range.to;
  let partial: string | undefined;
  for (let i = segments.length - 1; i >= Math.max(0, segments.length - REACH); i--) {
    const found = await scan(segments[i]!.files[0]!, false);
    if (i === segments.length - 1 && found.partial !== undefined) ({ validEnd, partial } = found);
    last = found.last;
    if (last !== undefined) break;
  }
  return {
    validEnd,
    ...(partial === undefined ? {} : { partial }),
    ...(first === undefined ? {} : { firstCommit: first }),
    ...(last === undefined ? {} : { lastCommit: last }),
  };
}

/** What the commits of a segment say. */
export interface ScannedCommits {
  first?: TimestampTz;
  last?: TimestampTz;
  validEnd: Lsn;
  /** Name of the file if it is a partial one. */
  partial?: string;
}

/** Reads the segment. */
export async function scanCommits(
  { archive, segmentSize, blockSize, systemId }: Catalog,
  { timeline, history }: CatalogTimeline,
  file: SegmentFile,
  stopAtFirst: boolean,
): Promise<ScannedCommits> {
  const startLsn = segmentStart(file.segment, segmentSize);
  const options: WalDecoderOptions = {
    startLsn,
    segmentSize,
    blockSize,
    systemId,
    ...(history ? { history } : { timeline }),
    partial: true,
    select: (rmgr, info) => rmgr === RM_XACT && isCommit(info),
  };
  const decoder = new WalDecoder(options);
  const found: Omit<ScannedCommits, 'validEnd'> = {};
  const take = (bytes: Uint8Array): boolean => {
    decoder.feed(bytes);
    for (let record = decoder.next(); record; record = decoder.next()) {
      if (!record.body) continue;
      const major = decoder.serverMajor;
      const { data } = parseRecordBody(record.body, { major });
      const time = parseXactRecord(record, data, major)?.time;
      if (time === undefined) continue;
      found.first ??= time;
      found.last = time;
      if (stopAtFirst) return false;
    }
    return decoder.fault === undefined;
  };
  if (file.partial) found.partial = file.name;
  try {
    await archive.segment(file.name, (stored) => {
      delete found.partial;
      if (stored.partial) found.partial = stored.name;
      return stored.read(segmentSize, take);
    });
  } catch (e) {
    if (!(e instanceof WalkeepError)) throw e;
  }
  return { ...found, validEnd: decoder.validEnd };
}

function isCommit(info: number): boolean {
  const type = info & XACT_OPMASK;
  return type === XACT_COMMIT || type === XACT_COMMIT_PREPARED;
}
