import { join } from 'node:path';
import { decompressFile } from '../storage/codec.js';
import { type FileSystem, nodeFileSystem } from '../storage/file-system.js';
import { segmentFileName, segmentOf } from '../wal/file-name.js';
import type { Lsn } from '../wal/lsn.js';
import { WalVerifier } from '../wal/verifier.js';

/**
 * End of the good WAL in the plain `.partial` of the segment that begins at `lsn`; `lsn` itself if
 * there is none. A server never sends other bytes for WAL that was whole once, and after a crash
 * the ledger lags behind what was acknowledged: all of this is compared when it comes again.
 */
export async function endOfStoredWal(
  directory: string,
  lsn: Lsn,
  timeline: number,
  segmentSize: number,
  fs: FileSystem = nodeFileSystem,
): Promise<Lsn> {
  const name = segmentFileName(timeline, segmentOf(lsn, segmentSize), segmentSize);
  const path = join(directory, `${name}.partial`);
  if (fs.sizeSync(path) === undefined) return lsn;
  const verifier = new WalVerifier({ startLsn: lsn, segmentSize, timeline });
  const stop = new AbortController();
  const feed = (chunk: Uint8Array): void => {
    if (verifier.feed(chunk)) stop.abort();
  };
  await decompressFile(path, 'none', feed, { limit: segmentSize, signal: stop.signal, fs }).catch(
    (e) => {
      // What is no regular file is refused where it is opened for writing.
      const { code } = (e?.cause ?? {}) as NodeJS.ErrnoException;
      const irregular = ['EISDIR', 'ELOOP', 'ENOENT', 'ESPIPE'].includes(code ?? '');
      if (!stop.signal.aborted && !irregular) throw e;
    },
  );
  return verifier.validEnd > lsn ? verifier.validEnd : lsn;
}
