import type { Finding } from '../archive/findings.js';
import type { SegmentFile } from '../archive/listing.js';
import { identifySegment } from '../archive/segment-identity.js';
import type { SegmentRead, TakeBytes } from '../archive/segment-reader.js';
import type { StoredSegment } from '../archive/segment-source.js';
import { checkSegment } from '../archive/wal-directory.js';
import { CODECS } from '../codec/codecs.js';
import { formatLsn, type Lsn } from '../lsn.js';
import { type SegmentName, segmentFileName, segmentOf } from '../wal/file-name.js';
import { LONG_PAGE_HEADER, SHORT_PAGE_HEADER } from '../wal/page.js';
import { WalVerifier } from '../wal/verifier.js';
import { FaultLog } from './fault-log.js';
import type { VerifyJob } from './plan.js';

/** A segment file while it is being checked. */
export interface CheckedFile extends SegmentName {
  /** Bare file name. */
  name: string;
  file: StoredSegment;
  /** LSN of its first byte. */
  start: Lsn;
}

/** A verifier that knows all that is known about the WAL of a job. */
export function verifierFrom(job: VerifyJob, startLsn: Lsn): WalVerifier {
  const { segmentSize, blockSize, systemId, magic, timeline, history } = job;
  const owner = history ? { history } : { timeline };
  return new WalVerifier({ startLsn, segmentSize, blockSize, systemId, magic, ...owner });
}

/**
 * Why a file cannot be the segment that its name says, from its first bytes; undefined if they do
 * not contradict it. What else is wrong with a header is for the verifier to say.
 */
export function mistakenIdentity(
  { systemId, segmentSize, blockSize }: VerifyJob,
  { name, start }: CheckedFile,
  bytes: Uint8Array,
): Finding | undefined {
  const found = identifySegment(bytes, { name, systemId, segmentSize, blockSize });
  const place = { severity: 'error', file: name, lsn: start } as const;
  switch (found.state) {
    case 'this':
    case 'unknown':
      return undefined;
    case 'foreign':
      return {
        ...place,
        code: 'foreign-cluster',
        message: `WAL of another cluster: system identifier ${found.header.systemId}, not ${systemId}`,
        hint: 'Move it to the archive of its own cluster, and put the right segment in its place.',
      };
    case 'another': {
      const { pageAddress, timeline } = found.header;
      const other = segmentFileName(timeline, segmentOf(pageAddress, segmentSize), segmentSize);
      return {
        ...place,
        code: 'wrong-segment',
        message: `holds the WAL of segment ${other}, at ${formatLsn(pageAddress)}`,
        hint: 'It was renamed or copied over another one: put the right segment in its place.',
      };
    }
  }
}

/** A file that does not hold exactly one segment. */
export function wrongSize(file: string, message: string): Finding {
  const hint = 'Put a good copy of the file in its place.';
  return { severity: 'error', code: 'wrong-size', file, message, hint };
}

/**
 * `--quick`: the first header of a segment, and its size where that is cheap to know. For lz4 and
 * zstd it is not: only at the end of the content.
 */
export async function checkHeaderOnly(
  job: VerifyJob,
  file: CheckedFile,
  read: (take: TakeBytes) => Promise<SegmentRead>,
  report: (finding: Finding) => void,
): Promise<void> {
  const { place, segmentSize, blockSize } = job;
  let header: Uint8Array = new Uint8Array(0);
  await read((bytes) => {
    header = bytes.slice(0, blockSize + SHORT_PAGE_HEADER);
    return false;
  });
  const blank = file.partial && header.every((byte) => byte === 0);
  const mistaken = mistakenIdentity(job, file, header);
  if (mistaken) {
    report(mistaken);
    return;
  }
  if (!blank) {
    const fault = verifierFrom(job, file.start).feed(header.subarray(0, LONG_PAGE_HEADER));
    const log = new FaultLog(blockSize, report);
    if (fault) log.add(fault, file.name);
    log.flush();
  }
  if (file.partial || file.file.inStore) return;
  if (!CODECS[file.compression].contentSize) return;
  const measured: SegmentFile = { ...file };
  const problem = await checkSegment(place, measured, segmentSize);
  if (problem !== undefined) report(wrongSize(file.name, problem.replace(', skipping', '')));
}
