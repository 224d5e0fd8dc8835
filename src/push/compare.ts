import { join } from 'node:path';
import { decompressFile } from '../codec/codec.js';
import {
  type Compression,
  compressionSuffix,
  isValidSegmentSize,
  parseSegmentFileName,
  segmentStart,
} from '../wal/file-name.js';
import { firstDifference as firstOtherByte, WalComparison } from '../wal/same-wal.js';
import { exists, type PushSource } from './place.js';

/** Whatever an archive may hold a segment as. */
export const COMPRESSIONS: readonly Compression[] = ['none', 'gzip', 'lz4', 'zstd'];
const CHUNK = 1024 * 1024;

/** The file that has a complete segment, in whatever compression. */
export async function completeFile(
  name: string,
  directory: string,
): Promise<{ name: string; compression: Compression } | undefined> {
  for (const compression of COMPRESSIONS) {
    const file = name + compressionSuffix(compression);
    if (await exists(join(directory, file))) return { name: file, compression };
  }
  return undefined;
}

/**
 * Offset of the first byte at which a stored file has something else than the source, or ends;
 * undefined if it has the same, which for a segment is the same WAL. @throws StorageError
 */
export async function firstDifference(
  source: PushSource,
  path: string,
  compression: Compression,
): Promise<number | undefined> {
  const mine = Buffer.allocUnsafe(CHUNK);
  const differ = differenceIn(source);
  let at = 0;
  let different: number | undefined;
  const result = await decompressFile(
    path,
    compression,
    async (chunk) => {
      for (let from = 0; from < chunk.length && different === undefined; ) {
        const piece = chunk.subarray(from, from + CHUNK);
        const { bytesRead } = await source.handle.read(mine, 0, piece.length, at);
        const same = differ(piece, mine.subarray(0, bytesRead)) ?? bytesRead;
        if (same < piece.length) different = at + same;
        at += same;
        from += piece.length;
      }
    },
    { limit: source.size + 1 },
  );
  if (different !== undefined) return different;
  return at === source.size && result.end === 'complete' ? undefined : at;
}

type Differ = (a: Uint8Array, b: Uint8Array) => number | undefined;

/** What tells the first difference in the next bytes of two copies of this file. */
function differenceIn({ name, size }: PushSource): Differ {
  const segment = isValidSegmentSize(size) ? parseSegmentFileName(name, size) : undefined;
  if (segment) {
    const startLsn = segmentStart(segment.segment, size);
    const comparison = new WalComparison({ startLsn, segmentSize: size });
    return (a, b) => comparison.feed(a, b);
  }
  return (a, b) => {
    const length = Math.min(a.length, b.length);
    const at = firstOtherByte(a, b, 0, length);
    return at < length ? at : undefined;
  };
}
