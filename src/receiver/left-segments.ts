import { join } from 'node:path';
import { decompressFile } from '../storage/codec.js';
import { durableRename, storeAnew } from '../storage/durable.js';
import type { FileSystem } from '../storage/file-system.js';
import type { Ledger } from '../storage/ledger.js';
import { SPARE_NAME } from '../storage/spare-segment.js';
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
    // One of an ancestor is none: behind the fork it has other bytes.
    if (!file || files.some((s) => !s.partial && s.timeline >= newest.timeline)) break;
    left.unshift(file);
  }
  return left;
}

/**
 * Gives final names to those of `left` that are proved whole: all their records are good, the last
 * one up to its end in the next file, or, where that end was not received yet, the WAL behind it
 * was acknowledged. The server may have removed what was. Returns the first one that is not proved:
 * streaming starts there.
 *
 * @param acknowledged up to here the server or the ledger knows that the WAL was flushed here
 */
export async function finishLeft(
  directory: string,
  server: ServerState,
  left: readonly SegmentFile[],
  newest: SegmentFile,
  ledger: Ledger,
  acknowledged: bigint,
  fs: FileSystem,
): Promise<SegmentFile | undefined> {
  const { segmentSize, fileMode } = server;
  const verify = (files: readonly SegmentFile[]) => verifyFiles(directory, server, files, fs);
  const { validEnd } = await verify([...left, newest]);
  for (const [i, file] of left.entries()) {
    const end = segmentStart(file.segment + 1n, segmentSize);
    // Of a record that goes on in the next file the rest may be missing there: not looked at.
    const proved =
      validEnd >= end ||
      (acknowledged >= end && (await verify(left.slice(0, i + 1))).verifiedEnd >= end);
    if (!proved || file.compression !== 'none') return file;
    const path = join(directory, file.name);
    await storeAnew(path, join(directory, SPARE_NAME), segmentSize, { mode: fileMode, fs });
    const { timeline } = file;
    if (ledger.state.systemId !== undefined) {
      await ledger.append({ type: 'complete', lsn: end, timeline });
    }
    const name = segmentFileName(timeline, file.segment, segmentSize);
    await durableRename(path, join(directory, name), fs);
  }
  return undefined;
}

/** A verifier that was fed consecutive files of one timeline. */
async function verifyFiles(
  directory: string,
  { segmentSize, systemId }: ServerState,
  files: readonly SegmentFile[],
  fs: FileSystem,
): Promise<WalVerifier> {
  const { segment, timeline } = files[0] as SegmentFile;
  const startLsn = segmentStart(segment, segmentSize);
  const verifier = new WalVerifier({ startLsn, segmentSize, timeline, systemId });
  for (const file of files) {
    // A short file makes the next one fail at its first page.
    const feed = (chunk: Uint8Array): void => void verifier.feed(chunk);
    await decompressFile(join(directory, file.name), file.compression, feed, {
      limit: segmentSize,
      fs,
    });
    if (verifier.fault) break;
  }
  return verifier;
}
