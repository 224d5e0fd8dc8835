import { join } from 'node:path';
import { decompressFile } from '../storage/codec.js';
import { type FileSystem, nodeFileSystem } from '../storage/file-system.js';
import { segmentFileName, segmentOf } from '../wal/file-name.js';
import type { Lsn } from '../wal/lsn.js';
import { WalVerifier } from '../wal/verifier.js';

/** What the plain `.partial` of a segment holds. */
export interface StoredWal {
  /** End of the last good record; the segment's start if there is none. */
  end: Lsn;
  /** True if what lies between `end` and the given position is an unfinished record. */
  torn: boolean;
}

/**
 * Looks at the plain `.partial` of the segment that begins at `lsn`. A server never sends other
 * bytes for WAL that was whole once, and after a crash the ledger lags behind what was
 * acknowledged: all of this is compared when it comes again. Not so a record whose end never came:
 * it was acknowledged unchecked, and may have been damaged on its way.
 *
 * @param acknowledged position for which `torn` is asked
 */
export async function storedWal(
  directory: string,
  lsn: Lsn,
  acknowledged: bigint,
  timeline: number,
  segmentSize: number,
  fs: FileSystem = nodeFileSystem,
): Promise<StoredWal> {
  const name = segmentFileName(timeline, segmentOf(lsn, segmentSize), segmentSize);
  const path = join(directory, `${name}.partial`);
  if (fs.sizeSync(path) === undefined) return { end: lsn, torn: false };
  const verifier = new WalVerifier({ startLsn: lsn, segmentSize, timeline });
  const stop = new AbortController();
  let torn = false;
  const feed = (chunk: Uint8Array): void => {
    const rest = Number(acknowledged - verifier.position);
    const cut = Math.min(Math.max(rest, 0), chunk.length);
    verifier.feed(chunk, 0, cut);
    if (rest >= 0 && rest <= chunk.length) torn = !verifier.fault;
    if (verifier.feed(chunk, cut)) stop.abort();
  };
  await decompressFile(path, 'none', feed, { limit: segmentSize, signal: stop.signal, fs }).catch(
    (e) => {
      // What is no regular file is refused where it is opened for writing.
      const { code } = (e?.cause ?? {}) as NodeJS.ErrnoException;
      const irregular = ['EISDIR', 'ELOOP', 'ENOENT', 'ESPIPE'].includes(code ?? '');
      if (!stop.signal.aborted && !irregular) throw e;
    },
  );
  const end = verifier.validEnd > lsn ? verifier.validEnd : lsn;
  return { end, torn: torn && end < acknowledged };
}
