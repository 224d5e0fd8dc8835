import { StorageError } from '../errors.js';
import { decompressFile } from '../storage/codec.js';
import { formatLsn } from '../wal/lsn.js';
import type { PlannedFile, PlannedSegment } from './find-plan.js';
import type { DamageTolerantScan } from './find-scan.js';

/** Thrown through a decompressor to end it. */
const ENOUGH = Symbol('enough');

/**
 * Feeds segments, in their order, to a scan until it has had enough.
 * @throws the signal's reason; NotSupportedError for zstd before Node.js 22.15
 */
export async function scanSegments(
  segments: readonly PlannedSegment[],
  segmentSize: number,
  scan: DamageTolerantScan,
  signal?: AbortSignal,
): Promise<void> {
  for (const [i, segment] of segments.entries()) {
    signal?.throwIfAborted();
    scan.startAt(segment.start);
    let told = false;
    for (const file of segment.files) {
      if (scan.enough || scan.position! >= file.end) break;
      told = (await scanFile(file, segment, scan, signal)) || told;
    }
    if (scan.enough) return;
    const full = scan.position === segment.start + BigInt(segmentSize);
    if (i === segments.length - 1) finish(segment, scan, told);
    else if (full) scan.endSegment();
  }
}

/** Ends a scan. Only where nothing but partials is there the WAL may end anywhere. */
function finish({ files }: PlannedSegment, scan: DamageTolerantScan, told: boolean): void {
  const complete = files.filter((file) => !file.partial);
  const to = complete.reduce((end, file) => (file.end > end ? file.end : end), 0n);
  const from = scan.position!;
  // Behind a complete one of the parent a partial of the timeline that follows may end.
  scan.finish({ mayEnd: from > to });
  if (told || from >= to) return;
  scan.unreadable(`WAL is missing: ${formatLsn(from)} to ${formatLsn(to)}`);
}

/** Feeds what a file has behind the bytes that others had. True if it told that not all is read. */
async function scanFile(
  file: PlannedFile,
  { start }: PlannedSegment,
  scan: DamageTolerantScan,
  signal?: AbortSignal,
): Promise<boolean> {
  let skip = Number(scan.position! - start);
  const limit = Number(file.end - start);
  try {
    const onChunk = (chunk: Uint8Array): void => {
      const n = Math.min(skip, chunk.length);
      skip -= n;
      if (n < chunk.length) scan.feed(n === 0 ? chunk : chunk.subarray(n));
      if (scan.enough) throw ENOUGH;
    };
    const result = await decompressFile(file.path, file.compression, onChunk, {
      limit,
      ...(signal ? { signal } : {}),
    });
    if (result.end !== 'damaged') return false;
    scan.unreadable(`could not decompress file "${file.name}": ${result.problem}`);
  } catch (e) {
    if (e === ENOUGH) return false;
    // The receiver may have renamed it meanwhile; the rest of the archive is there all the same.
    if (!(e instanceof StorageError)) throw e;
    scan.unreadable(e.message);
  }
  return true;
}
