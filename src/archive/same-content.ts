import { basename } from 'node:path';
import { decompressFile } from '../codec/codec.js';
import { storageError } from '../files/durable.js';
import { type FileSystem, OPEN_READ } from '../files/file-system.js';
import { type Compression, parseSegmentFileName, segmentStart } from '../wal/file-name.js';
import { WalComparison } from '../wal/same-wal.js';
import type { WalVerifier } from '../wal/verifier.js';
import { readFully } from './stored-content.js';

/**
 * True if a plain segment file of `size` bytes holds the same WAL as another one does, which may be
 * compressed. @throws StorageError, NotSupportedError if one of them cannot be read
 */
export async function sameContent(
  plain: string,
  other: { path: string; compression: Compression },
  size: number,
  fs: FileSystem,
): Promise<boolean> {
  const name = parseSegmentFileName(basename(plain), size);
  if (!name || fs.sizeSync(plain) !== size) return false;
  const access = <T>(action: string, act: () => T): T => {
    try {
      return act();
    } catch (e) {
      throw storageError(action, plain, e);
    }
  };
  const fd = access('open file', () => fs.openSync(plain, OPEN_READ, 0));
  try {
    let at = 0;
    let same = true;
    const startLsn = segmentStart(name.segment, size);
    const comparison = new WalComparison({ startLsn, segmentSize: size });
    const compare = (chunk: Uint8Array): void => {
      const stored = Buffer.alloc(chunk.length);
      const read = () => fs.readSync(fd, stored, stored.length, at);
      same &&=
        access('read file', read) === stored.length && comparison.feed(stored, chunk) === undefined;
      at += chunk.length;
    };
    const limits = { limit: size + 1, fs };
    const { end } = await decompressFile(other.path, other.compression, compare, limits);
    return same && at === size && end === 'complete';
  } finally {
    fs.closeSync(fd);
  }
}

/**
 * Offset of the first byte at which the first `limit` bytes of a file are other WAL than those of a
 * plain one, of which what is not there counts as zeros; undefined if none is.
 *
 * @param verifier stands where both begin
 * @throws StorageError, NotSupportedError if the other one cannot be read
 */
export async function firstOtherWal(
  plain: string,
  { path, compression, limit }: { path: string; compression: Compression; limit: number },
  verifier: WalVerifier,
  fs: FileSystem,
): Promise<number | undefined> {
  const fd = fs.openSync(plain, OPEN_READ, 0);
  try {
    let at = 0;
    let found: number | undefined;
    const comparison = new WalComparison(verifier);
    const compare = async (chunk: Uint8Array): Promise<void> => {
      if (found !== undefined) return;
      const stored = Buffer.alloc(chunk.length);
      await readFully(fs, fd, stored, at);
      const different = comparison.feed(chunk, stored);
      if (different !== undefined) found = at + different;
      at += chunk.length;
    };
    await decompressFile(path, compression, compare, { limit, fs });
    return found;
  } finally {
    fs.closeSync(fd);
  }
}
