import type { Compression } from '../wal/file-name.js';
import { decompressFile } from './codec.js';
import { storageError } from './durable.js';
import { type FileSystem, OPEN_READ } from './file-system.js';

/**
 * True if a plain file of `size` bytes holds, byte for byte, what another one does, which may be
 * compressed. @throws StorageError, NotSupportedError if one of them cannot be read
 */
export async function sameContent(
  plain: string,
  other: { path: string; compression: Compression },
  size: number,
  fs: FileSystem,
): Promise<boolean> {
  if (fs.sizeSync(plain) !== size) return false;
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
    const compare = (chunk: Uint8Array): void => {
      const stored = Buffer.alloc(chunk.length);
      const read = () => fs.readSync(fd, stored, stored.length, at);
      same &&= access('read file', read) === stored.length && stored.equals(chunk);
      at += chunk.length;
    };
    const limits = { limit: size + 1, fs };
    const { end } = await decompressFile(other.path, other.compression, compare, limits);
    return same && at === size && end === 'complete';
  } finally {
    fs.closeSync(fd);
  }
}
