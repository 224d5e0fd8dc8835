import { join } from 'node:path';
import { decompressFile } from '../storage/codec.js';
import { durableRename, fsyncFile } from '../storage/durable.js';
import type { Ledger } from '../storage/ledger.js';
import type { DirectoryScan, SegmentFile } from '../storage/wal-directory.js';
import { segmentFileName, segmentOf, segmentStart } from '../wal/file-name.js';
import { WalVerifier } from '../wal/verifier.js';
import type { ServerState } from './server-state.js';

/**
 * The partials right before the newest file that have no complete counterpart, oldest first. A
 * receiver that was killed leaves them: segments are finished, and above all compressed, in the
 * background, while the next one is being written and acknowledged.
 */
export function leftSegments(scan: DirectoryScan, ledger: Ledger): SegmentFile[] {
  const { newest, segments, segmentSize } = scan;
  // An empty partial is the wish to start exactly there.
  if (!newest || newest.size === 0) return [];
  const begun = ledger.state.lineage.at(-1)?.start ?? 0n;
  const left: SegmentFile[] = [];
  for (let n = newest.segment - 1n; n >= segmentOf(begun, segmentSize); n -= 1n) {
    const files = segments.filter((s) => s.segment === n);
    const file = files.find((s) => s.partial && s.timeline === newest.timeline);
    if (!file || files.some((s) => !s.partial)) break;
    left.unshift(file);
  }
  return left;
}

/**
 * Gives final names to those of `left` that are proved whole: all their records are good, the last
 * one up to its end in the next file. Their WAL may have been acknowledged, and so be gone from the
 * server. Returns the first one that is not proved: streaming starts there.
 */
export async function finishLeft(
  directory: string,
  server: ServerState,
  left: readonly SegmentFile[],
  newest: SegmentFile,
  ledger: Ledger,
): Promise<SegmentFile | undefined> {
  const [first] = left;
  if (!first) return undefined;
  const { segmentSize, systemId } = server;
  const { timeline } = first;
  const startLsn = segmentStart(first.segment, segmentSize);
  const verifier = new WalVerifier({ startLsn, segmentSize, timeline, systemId });
  for (const file of [...left, newest]) {
    // A short file makes the next one fail at its first page.
    const feed = (chunk: Uint8Array): void => void verifier.feed(chunk);
    await decompressFile(join(directory, file.name), file.compression, feed, {
      limit: segmentSize,
    });
    if (verifier.fault) break;
  }
  for (const file of left) {
    const end = segmentStart(file.segment + 1n, segmentSize);
    if (verifier.validEnd < end || file.compression !== 'none') return file;
    const path = join(directory, file.name);
    await fsyncFile(path);
    if (ledger.state.systemId !== undefined) {
      await ledger.append({ type: 'complete', lsn: end, timeline });
    }
    await durableRename(
      path,
      join(directory, segmentFileName(timeline, file.segment, segmentSize)),
    );
  }
  return undefined;
}
