import { join } from 'node:path';
import { decompressFile } from '../storage/codec.js';
import type { FileSystem } from '../storage/file-system.js';
import { compressionSuffix, segmentFileName, segmentOf, segmentStart } from '../wal/file-name.js';
import { LONG_PAGE_HEADER, parsePageHeader, XLP_FIRST_IS_CONTRECORD } from '../wal/page.js';
import { type TimelineHistory, timelineAt } from '../wal/timeline.js';
import { WalVerifier } from '../wal/verifier.js';
import type { WalOptions } from '../wal/walker.js';

const COMPRESSIONS = ['none', 'gzip', 'lz4'] as const;

/**
 * A verifier that stands at `startLsn`, the start of a segment, and knows the record that goes on
 * there: it was fed the stored segments before, from the one in which that record begins. The
 * checksum of a record can only be checked at its end. Without this, damage before a segment's end
 * would stay in a complete file for ever if the connection was lost between it and that end.
 *
 * Undefined if those segments are not all here and sound: then the rest of that record is skipped.
 */
export async function anchoredVerifier(
  directory: string,
  options: WalOptions & { history?: TimelineHistory | undefined; segmentSize: number },
  fs: FileSystem,
): Promise<WalVerifier | undefined> {
  const { startLsn, segmentSize } = options;
  const files: StoredFile[] = [];
  for (let n = segmentOf(startLsn, segmentSize) - 1n; n > 0n; n -= 1n) {
    const file = findComplete(directory, options, n, fs);
    if (!file) return undefined;
    files.unshift(file);
    // All of it belongs to a record that began further back: not worth reading.
    if ((await continuedBytes(file, fs)) >= segmentSize) continue;
    const first = segmentStart(n, segmentSize);
    const verifier = new WalVerifier({ ...options, startLsn: first });
    for (const { path, compression } of files) {
      const feed = (chunk: Uint8Array): void => void verifier.feed(chunk);
      await decompressFile(path, compression, feed, { limit: segmentSize, fs }).catch(() => {});
    }
    if (verifier.fault || verifier.position !== startLsn) return undefined;
    if (verifier.validEnd > first || (await continuedBytes(file, fs)) === 0) return verifier;
  }
  return undefined;
}

interface StoredFile {
  path: string;
  compression: (typeof COMPRESSIONS)[number];
}

/** The complete file of a segment on the lineage, in whatever form. */
function findComplete(
  directory: string,
  { history, timeline, segmentSize }: Parameters<typeof anchoredVerifier>[1],
  segment: bigint,
  fs: FileSystem,
): StoredFile | undefined {
  const last = segmentStart(segment + 1n, segmentSize) - 1n;
  const owner = history ? timelineAt(history, last) : timeline;
  if (owner === undefined) return undefined;
  const name = segmentFileName(owner, segment, segmentSize);
  for (const compression of COMPRESSIONS) {
    const path = join(directory, `${name}${compressionSuffix(compression)}`);
    if (fs.sizeSync(path) !== undefined) return { path, compression };
  }
  return undefined;
}

/** Bytes of a record from before that a segment begins with; 0 if its first page begins none. */
async function continuedBytes({ path, compression }: StoredFile, fs: FileSystem): Promise<number> {
  const pieces: Uint8Array[] = [];
  const feed = (chunk: Uint8Array): void => void pieces.push(Uint8Array.from(chunk));
  await decompressFile(path, compression, feed, { limit: LONG_PAGE_HEADER, fs }).catch(() => {});
  const page = Buffer.concat(pieces);
  if (page.length < LONG_PAGE_HEADER) return 0;
  const { info, remaining } = parsePageHeader(page);
  return info & XLP_FIRST_IS_CONTRECORD ? remaining : 0;
}
