import { ArchiveAccessError, StorageError } from '../../errors.js';
import { formatLsn } from '../../lsn.js';
import type { Archive } from '../archive.js';
import type { Plan, PlannedFile, PlannedSegment } from './plan.js';
import type { DamageTolerantScan } from './scan.js';

/**
 * Feeds segments, in their order, to a scan until it has had enough. `between` is awaited behind each.
 * @throws the signal's reason
 */
export async function scanSegments(
  { archive, segmentSize }: Pick<Plan, 'archive' | 'segmentSize'>,
  segments: readonly PlannedSegment[],
  scan: DamageTolerantScan,
  signal?: AbortSignal,
  between?: () => Promise<void>,
): Promise<void> {
  for (const [i, segment] of segments.entries()) {
    const told = await feedSegment({ archive, segmentSize }, segment, scan, signal);
    await between?.();
    if (scan.enough) return;
    const full = scan.position === segment.start + BigInt(segmentSize);
    if (i === segments.length - 1) finish(segment, scan, told);
    else if (full) scan.endSegment();
  }
}

/**
 * Feeds one segment, or the rest of the one that the scan is in, and leaves open what follows.
 * @param stop asked behind each piece: true if that was enough of it
 * @returns true if it told that not all of it is read
 */
export async function feedSegment(
  { archive, segmentSize }: Pick<Plan, 'archive' | 'segmentSize'>,
  segment: PlannedSegment,
  scan: DamageTolerantScan,
  signal?: AbortSignal,
  stop: () => boolean = () => false,
): Promise<boolean> {
  signal?.throwIfAborted();
  const at = scan.position ?? 0n;
  const end = segment.start + BigInt(segmentSize);
  if (at <= segment.start || at >= end) scan.startAt(segment.start);
  let told = false;
  for (const file of segment.files) {
    if (scan.enough || scan.position! >= file.end || stop()) break;
    told = (await scanFile(archive, file, segment, { scan, signal, stop })) || told;
  }
  return told;
}

/** Ends a scan. Only where nothing but partials is there the WAL may end anywhere. */
export function finish({ files }: PlannedSegment, scan: DamageTolerantScan, told: boolean): void {
  const complete = files.filter((file) => !file.partial);
  const to = complete.reduce((end, file) => (file.end > end ? file.end : end), 0n);
  const from = scan.position!;
  // Behind a complete one of the parent a partial of the timeline that follows may end.
  scan.finish({ mayEnd: from > to });
  if (told || from >= to) return;
  scan.unreadable(`WAL is missing: ${formatLsn(from)} to ${formatLsn(to)}`, 'missing');
}

/** Feeds what a file has behind the bytes that others had. True if it told that not all is read. */
async function scanFile(
  archive: Archive,
  file: PlannedFile,
  { start }: PlannedSegment,
  reading: { scan: DamageTolerantScan; signal: AbortSignal | undefined; stop: () => boolean },
): Promise<boolean> {
  const { scan, signal, stop } = reading;
  const skip = Number(scan.position! - start);
  const limit = Number(file.end - start);
  try {
    await archive.segment(file.name, async (stored) => {
      const { path, name, compression, partial } = stored;
      // Behind it a receiver may be writing: what is read there belongs to no one moment.
      const content = partial && compression === 'none' ? await stored.contentEnd() : limit;
      let at = 0;
      let stopped = false;
      const take = (chunk: Uint8Array): boolean => {
        const wanted = chunk.subarray(Math.max(0, skip - at), Math.max(0, content - at));
        at += chunk.length;
        if (wanted.length > 0) scan.feed(wanted);
        stopped = stop();
        return !stopped && !scan.enough && signal?.aborted !== true;
      };
      const { end, problem } = await stored.read(limit, take, { readAhead: true });
      signal?.throwIfAborted();
      if (stopped || scan.enough) return;
      const zeros = at - Math.max(skip, content);
      if (zeros > 0) scan.pad(zeros);
      if (end !== 'damaged') return;
      throw new StorageError(`could not decompress file "${name}": ${problem}`, { path });
    });
    return false;
  } catch (e) {
    // The rest of the archive is there all the same.
    if (!(e instanceof StorageError)) throw e;
    // What was read and cannot be decompressed is damaged; of what cannot be read nothing is known.
    const isDamaged = e.cause === undefined && !(e instanceof ArchiveAccessError);
    scan.unreadable(e.message, isDamaged ? undefined : e);
  }
  return true;
}
