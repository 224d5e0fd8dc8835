import { isGone } from '../archive/access.js';
import type { Archive } from '../archive/archive.js';
import { compareCopies } from '../archive/compare.js';
import type { Finding } from '../archive/findings.js';
import type { StoredSegment } from '../archive/segment-source.js';
import { formatLsn, type Lsn } from '../lsn.js';
import type { SegmentName } from '../wal/file-name.js';
import { WalComparison } from '../wal/same-wal.js';

interface Original extends SegmentName {
  name: string;
  file: StoredSegment;
  /** LSN of its first byte. */
  start: Lsn;
}

/**
 * Compares a further file of a segment with the one that was checked. Of a partial what counts is
 * what was written: zeros at its end are no content. Undefined if the other file is gone.
 * @throws StorageError if a file cannot be read
 */
export async function copyFinding(
  archive: Archive,
  original: Original,
  name: string,
  segmentSize: number,
): Promise<Finding | undefined> {
  if (name === original.name) return undefined;
  const copy = (file: StoredSegment) => ({
    bytes: file.bytes(segmentSize),
    partial: file.partial,
  });
  const compare = async (other: StoredSegment) =>
    // Under its new name it is compared as what has that.
    other.name === name
      ? compareCopies(
          copy(original.file),
          copy(other),
          new WalComparison({ startLsn: original.start, segmentSize }),
        )
      : ('gone' as const);
  const difference = await archive.segment(name, compare).catch((e) => {
    if (isGone(e) && !isGone(e, original.file.path)) return 'gone' as const;
    throw e;
  });
  if (difference === 'gone') return undefined;
  if (difference === 'more') {
    // Of a receiver at work that is as it should be.
    const atWork = (await archive.receiver())?.state === 'alive';
    return {
      severity: atWork ? 'info' : 'warning',
      code: 'duplicate',
      file: name,
      message: `the same WAL as in ${original.name}, and more behind it`,
      hint: 'A receiver went on with it: check again, the one that holds more is read then.',
    };
  }
  if (difference === undefined) {
    return {
      severity: 'info',
      code: 'duplicate',
      file: name,
      message: `the same WAL as in ${original.name}`,
      hint: `"${name}" can be removed while no receiver runs.`,
    };
  }
  const lsn = (original.start + BigInt(difference)) as Lsn;
  return {
    severity: 'error',
    code: 'duplicate-differs',
    file: name,
    lsn,
    message: `other bytes than in ${original.name} from ${formatLsn(lsn)} on`,
    hint: 'Find out which one is right, by checking each alone, and move the other one away.',
  };
}
