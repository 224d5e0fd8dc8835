import { basename } from 'node:path';
import { type Compression, parseSegmentFileName, segmentStart } from '../wal/file-name.js';
import { decompressFile } from './codec.js';
import { type FileSystem, OPEN_READ } from './file-system.js';
import { WalComparison } from './same-wal.js';

/**
 * True if a plain segment file of `size` bytes holds the same WAL as another one does, which may be
 * compressed. @throws StorageError, NotSupportedError if the other one cannot be read
 */
export async function sameContent(
  plain: string,
  other: { path: string; compression: Compression },
  size: number,
  fs: FileSystem,
): Promise<boolean> {
  const name = parseSegmentFileName(basename(plain), size);
  if (!name || fs.sizeSync(plain) !== size) return false;
  const fd = fs.openSync(plain, OPEN_READ, 0);
  try {
    let at = 0;
    let same = true;
    const startLsn = segmentStart(name.segment, size);
    const comparison = new WalComparison({ startLsn, segmentSize: size });
    const compare = (chunk: Uint8Array): void => {
      const stored = Buffer.alloc(chunk.length);
      same &&=
        fs.readSync(fd, stored, stored.length, at) === stored.length &&
        comparison.feed(stored, chunk) === undefined;
      at += chunk.length;
    };
    const limits = { limit: size + 1, fs };
    const { end } = await decompressFile(other.path, other.compression, compare, limits);
    return same && at === size && end === 'complete';
  } finally {
    fs.closeSync(fd);
  }
}
