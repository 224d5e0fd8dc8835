import { basename, join } from 'node:path';
import { decompressFile } from '../../codec/codec.js';
import type { FileSystem } from '../../files/file-system.js';
import {
  type Compression,
  compressionSuffix,
  segmentFileName,
  segmentOf,
  segmentStart,
} from '../../wal/file-name.js';
import { LONG_PAGE_HEADER, parsePageHeader, XLP_FIRST_IS_CONTRECORD } from '../../wal/page.js';
import { type TimelineHistory, timelineAt } from '../../wal/timeline.js';
import { WalVerifier } from '../../wal/verifier.js';
import type { WalOptions } from '../../wal/walker.js';

/**
 * A verifier that stands at `startLsn`, the start of a segment, and knows the record that goes on
 * there: it was fed the stored segments before, from the one in which that record begins. The
 * checksum of a record can only be checked at its end. Without this, damage before a segment's end
 * would stay in a complete file for ever if the connection was lost between it and that end.
 *
 * Undefined if those segments are not all here and sound: then the rest of that record is skipped.
 * @param onUnsound told of a file that is here and does not serve, and why
 * @throws StorageError if one of them cannot be read
 */
export async function anchoredVerifier(
  directory: string,
  options: WalOptions & { history?: TimelineHistory | undefined; segmentSize: number },
  fs: FileSystem,
  onUnsound: (name: string, why: string) => void = () => {},
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
    for (const stored of files) {
      const end = verifier.position + BigInt(segmentSize);
      const feed = (chunk: Uint8Array): void => void verifier.feed(chunk);
      const refused = await readStored(stored, segmentSize, feed, fs);
      if (!refused && !verifier.fault && verifier.position === end) continue;
      onUnsound(basename(stored.path), refused ?? verifier.fault?.message ?? 'it ends too early');
      return undefined;
    }
    if (!verifier.isSkipping) return verifier;
  }
  return undefined;
}

interface StoredFile {
  path: string;
  compression: Compression;
}

/** The complete file of a segment on the lineage, in whatever form. */
export function findComplete(
  directory: string,
  { history, timeline, segmentSize }: Parameters<typeof anchoredVerifier>[1],
  segment: bigint,
  fs: FileSystem,
): StoredFile | undefined {
  const last = segmentStart(segment + 1n, segmentSize) - 1n;
  const owner = history ? timelineAt(history, last) : timeline;
  if (owner === undefined) return undefined;
  const name = segmentFileName(owner, segment, segmentSize);
  for (const compression of ['none', 'gzip', 'lz4'] as const) {
    const path = join(directory, `${name}${compressionSuffix(compression)}`);
    if (fs.sizeSync(path) !== undefined) return { path, compression };
  }
  return undefined;
}

/** Bytes of a record from before that a segment begins with; 0 if its first page begins none. */
export async function continuedBytes(stored: StoredFile, fs: FileSystem): Promise<number> {
  const pieces: Uint8Array[] = [];
  const feed = (chunk: Uint8Array): void => void pieces.push(Uint8Array.from(chunk));
  await readStored(stored, LONG_PAGE_HEADER, feed, fs);
  const page = Buffer.concat(pieces);
  if (page.length < LONG_PAGE_HEADER) return 0;
  const { info, remaining } = parsePageHeader(page);
  return info & XLP_FIRST_IS_CONTRECORD ? remaining : 0;
}

/** What is no file of ours to read. An error of the disk is another matter: it must not pass as this. */
const NOT_OURS = ['EISDIR', 'ELOOP', 'ENOENT', 'ESPIPE', 'EACCES', 'EPERM'];

/**
 * Reads stored WAL from its beginning. Gives why if it is nothing that can be read.
 * @throws StorageError if reading fails
 */
export async function readStored(
  { path, compression }: StoredFile,
  limit: number,
  feed: (chunk: Uint8Array) => void,
  fs: FileSystem,
): Promise<string | undefined> {
  try {
    await decompressFile(path, compression, feed, { limit, fs });
    return undefined;
  } catch (e) {
    const { code } = ((e as Error).cause ?? {}) as NodeJS.ErrnoException;
    if (code === undefined || !NOT_OURS.includes(code)) throw e;
    return (e as Error).message;
  }
}
