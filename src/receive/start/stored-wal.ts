import { join } from 'node:path';
import { anchoredVerifier, beginsInRecord, readStored } from '../../archive/lead-in.js';
import type { SegmentFile } from '../../archive/listing.js';
import { decompressFile } from '../../codec/codec.js';
import { type FileSystem, nodeFileSystem } from '../../files/file-system.js';
import type { Lsn } from '../../lsn.js';
import type { WalFault } from '../../wal/fault.js';
import { segmentFileName, segmentOf, segmentStart } from '../../wal/file-name.js';
import { WalVerifier } from '../../wal/verifier.js';

/** What the plain `.partial` of a segment holds, and those behind it in a row. */
export interface StoredWal {
  /** End of the last good record; the segment's start if there is none. */
  end: Lsn;
  /** As `end`, but the segment's start too if what begins there is the rest of an unknown record. */
  sound: Lsn;
  /**
   * True if what lies between `end` and the given position is an unfinished record that is known
   * from its beginning: when its end comes it is seen whether it is good.
   */
  torn: boolean;
  /**
   * What is wrong with the stored WAL between `end` and the given position. Undefined if nothing is
   * known to be, or the record there began before all that is known.
   */
  fault: WalFault | undefined;
}

/**
 * Looks at the plain `.partial` of the segment that begins at `lsn`, and, as far as each is good to
 * its end, at the next ones: a stream may begin further back than an earlier one ended. A server
 * never sends other bytes for WAL that was whole once, and after a crash the ledger lags behind what
 * was acknowledged: all of this is compared when it comes again. Not so a record whose end never
 * came: it was acknowledged unchecked, and may have been damaged on its way.
 *
 * @param acknowledged position for which `torn` is asked
 * @param anchor gives a verifier that knows the record that goes on at `lsn`; without it the rest of
 *   that record counts as good
 */
export async function storedWal(
  directory: string,
  lsn: Lsn,
  acknowledged: bigint,
  timeline: number,
  segmentSize: number,
  fs: FileSystem = nodeFileSystem,
  anchor?: () => Promise<WalVerifier | undefined>,
): Promise<StoredWal> {
  const pathOf = (segment: bigint) =>
    join(directory, `${segmentFileName(timeline, segment, segmentSize)}.partial`);
  const first = segmentOf(lsn, segmentSize);
  const path = pathOf(first);
  if (fs.sizeSync(path) === undefined)
    return { end: lsn, sound: lsn, torn: false, fault: undefined };
  const anchored = await anchor?.();
  const verifier = anchored ?? new WalVerifier({ startLsn: lsn, segmentSize, timeline });
  const stop = new AbortController();
  let torn = false;
  let fault: WalFault | undefined;
  const feed = (chunk: Uint8Array): void => {
    const rest = Number(acknowledged - verifier.position);
    const cut = Math.min(Math.max(rest, 0), chunk.length);
    if (cut > 0) fault = verifier.feed(chunk, 0, cut);
    if (rest >= 0 && rest <= chunk.length) torn = !verifier.fault && !verifier.isSkipping;
    if (verifier.feed(chunk, cut)) stop.abort();
  };
  const read = (file: string): Promise<unknown> =>
    decompressFile(file, 'none', feed, { limit: segmentSize, signal: stop.signal, fs }).catch(
      (e) => {
        // What is no regular file is refused where it is opened for writing.
        const { code } = (e?.cause ?? {}) as NodeJS.ErrnoException;
        const irregular = ['EISDIR', 'ELOOP', 'ENOENT', 'ESPIPE'].includes(code ?? '');
        if (!stop.signal.aborted && !irregular) throw e;
      },
    );
  for (let n = first; fs.sizeSync(pathOf(n)) !== undefined; n += 1n) {
    await read(pathOf(n));
    if (stop.signal.aborted || verifier.position < segmentStart(n + 1n, segmentSize)) break;
  }
  const end = verifier.validEnd > lsn ? verifier.validEnd : lsn;
  const known =
    anchored !== undefined || !(await beginsInRecord({ path, compression: 'none' }, fs));
  return {
    end,
    sound: known ? end : lsn,
    torn: torn && end < acknowledged,
    fault: known || end > lsn ? fault : undefined,
  };
}

/**
 * True if the record behind `lsn` is stored good: in one of the partials given, or before
 * `startLsn`, where they begin. Then it needs not be asked for again, whatever came since: it could
 * come damaged, and take the place of the good one.
 */
export async function isStoredGood(
  lsn: Lsn,
  directory: string,
  options: Parameters<typeof anchoredVerifier>[1],
  partials: readonly SegmentFile[],
  fs: FileSystem,
): Promise<boolean> {
  const { startLsn, segmentSize } = options;
  for (const { name, compression } of partials) {
    const anchored = await anchoredVerifier(directory, options, fs);
    if (!anchored && lsn < startLsn) return false;
    const verifier = anchored ?? new WalVerifier(options);
    const feed = (chunk: Uint8Array): void => void verifier.feed(chunk);
    await readStored({ path: join(directory, name), compression }, segmentSize, feed, fs);
    if (verifier.validEnd > lsn) return true;
  }
  return false;
}
