import { parseSegmentFileName, segmentStart } from '../wal/file-name.js';
import { type LongHeader, parseLongHeader } from '../wal/long-header.js';
import { parsePageHeader, SHORT_PAGE_HEADER } from '../wal/page.js';

/** What a file is expected to be. */
export interface ExpectedSegment {
  /** Its name, in whatever form. */
  name: string;
  /** The cluster it must be of, as far as that is known. */
  systemId: bigint | undefined;
  /** Bytes; default what the file itself says. */
  segmentSize?: number;
  /** Bytes. Known, the second page is asked where the first one contradicts the name. */
  blockSize?: number;
}

/**
 * What the first page of a file says. `this`: the segment that it is called. `foreign`: WAL of another
 * cluster. `another`: another segment of this one. `unknown`: it is no page that identifies anything.
 */
export type Identified =
  | { state: 'this' | 'foreign' | 'another'; header: LongHeader }
  | { state: 'unknown' };

/**
 * The one check of a file's name and cluster that everybody makes who reads, serves or takes a
 * segment: a file that was renamed, or copied over another one, is good WAL at the wrong place.
 * @param bytes its begin: the first page header at least, with `blockSize` also that of the second
 */
export function identifySegment(bytes: Uint8Array, expected: ExpectedSegment): Identified {
  const header = parseLongHeader(bytes);
  if (!header) return { state: 'unknown' };
  const { systemId, segmentSize = header.segmentSize, blockSize } = expected;
  if (systemId !== undefined && header.systemId !== systemId) return { state: 'foreign', header };
  const segment = parseSegmentFileName(expected.name, segmentSize)?.segment;
  if (segment === undefined) return { state: 'another', header };
  const start = segmentStart(segment, segmentSize);
  if (header.pageAddress === start) return { state: 'this', header };
  if (blockSize === undefined || bytes.length < blockSize + SHORT_PAGE_HEADER) {
    return { state: 'another', header };
  }
  // Where the second page is in its place, only the first header is damaged.
  const { address } = parsePageHeader(bytes.subarray(blockSize, blockSize + SHORT_PAGE_HEADER));
  if (address === start + BigInt(blockSize)) return { state: 'unknown' };
  return { state: 'another', header };
}
