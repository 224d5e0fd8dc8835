import fs from 'node:fs';
import { basename, dirname, join } from 'node:path';
import type { Lsn } from '../lsn.js';
import { segmentFileName, segmentStart } from '../wal/file-name.js';
import { parseLongHeader } from '../wal/long-header.js';
import { parsePageHeader, XLP_FIRST_IS_CONTRECORD } from '../wal/page.js';
import { leadInto, type SegmentIdentity } from './lead.js';
import { readPlainHead, readSource } from './source.js';

/** A segment that the server has itself, beside the target, and reads if it is told "not there". */
export interface OwnSegment {
  /** End of the last complete good record. */
  validEnd: Lsn;
  /** The WAL is good up to the end of the segment. */
  whole: boolean;
}

/** A segment as it must be to count; what is not known is taken from its first page. */
export type OwnIdentity = Omit<SegmentIdentity, 'systemId' | 'blockSize'> & {
  systemId: bigint | undefined;
};

/**
 * What the server has of a segment in its pg_wal: from a walreceiver, from the backup, saved from
 * the primary. Undefined if there is none, or one of another address, as recycled ones are.
 */
export async function readOwnSegment(
  archive: string,
  target: string,
  wanted: OwnIdentity,
): Promise<OwnSegment | undefined> {
  const { timeline, segment, segmentSize } = wanted;
  const name = segmentFileName(timeline, segment, segmentSize);
  const path = join(dirname(target), name);
  if (basename(target) === name) return undefined;
  let head: Uint8Array;
  let size: number;
  try {
    head = readPlainHead(path);
    ({ size } = fs.statSync(path));
  } catch {
    return undefined;
  }
  const header = parseLongHeader(head);
  const isIt =
    header?.pageAddress === segmentStart(segment, segmentSize) &&
    header.segmentSize === segmentSize &&
    size === segmentSize &&
    (wanted.systemId === undefined || wanted.systemId === header.systemId);
  if (!isIt) return undefined;
  const { systemId, blockSize } = header;
  const continues = (parsePageHeader(head).info & XLP_FIRST_IS_CONTRECORD) !== 0;
  const verifier = await leadInto({ ...wanted, systemId, blockSize }, continues, {
    archive,
    near: [dirname(target)],
  });
  const source = { path, compression: 'none', size } as const;
  await readSource(source, size, (bytes) => verifier.feed(bytes));
  return { validEnd: verifier.validEnd, whole: verifier.fault === undefined };
}
