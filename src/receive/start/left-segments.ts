import { join } from 'node:path';
import { hasAllOf, sameContent } from '../../archive/compare.js';
import { feedStored, type StoredStretch } from '../../archive/good-wal.js';
import type { Ledger, LedgerEntry, LedgerState } from '../../archive/ledger.js';
import type { SegmentFile } from '../../archive/listing.js';
import type { DirectoryScan } from '../../archive/wal-directory.js';
import {
  durableRename,
  fsyncDir,
  fsyncLinked,
  storageError,
  storeAnew,
} from '../../files/durable.js';
import type { FileSystem } from '../../files/file-system.js';
import { VERSION } from '../../package.js';
import type { ServerState } from '../../server/server-state.js';
import { segmentFileName, segmentOf, segmentStart } from '../../wal/file-name.js';
import { XLP_FIRST_IS_CONTRECORD } from '../../wal/page.js';
import { WalVerifier } from '../../wal/verifier.js';
import { seedPartial } from '../target/partial-seed.js';
import type { FinishedSegment } from '../target/segment-finisher.js';
import { SPARE_NAME } from '../target/spare-segment.js';

/** Segments that get their names at once, at most, and some more. */
const MOST_NAMED = 16;

/**
 * The oldest partials in a row, before the newest file, that have no complete counterpart; oldest
 * first. A receiver that was killed leaves them: segments are finished, and above all compressed, in
 * the background, while the next one is being written and acknowledged. Behind one that has its name
 * only those count that the ledger has as complete: renames need not survive in their order.
 */
export function leftSegments(scan: DirectoryScan, ledger: LedgerState): SegmentFile[] {
  const { newest, segments, segmentSize } = scan;
  // An empty partial is the wish to start exactly there.
  if (!newest || newest.size === 0) return [];
  // The fork of a timeline that the ledger does not know yet may lie before the archive's first start.
  const own = ledger.lineage.findLast((entry) => entry.timeline === newest.timeline);
  const begun = own?.start ?? 0n;
  const { timeline, completeLsn = 0n } = ledger;
  const complete = timeline === newest.timeline ? completeLsn : 0n;
  let left: SegmentFile[] = [];
  let named = 0;
  for (let n = newest.segment - 1n; n >= segmentOf(begun, segmentSize); n -= 1n) {
    const files = segments.filter((s) => s.segment === n);
    if (files.some((s) => !s.partial && s.timeline >= newest.timeline)) {
      named += 1;
      if (named > MOST_NAMED) break;
      continue;
    }
    const file = files.find((s) => s.partial && s.timeline === newest.timeline);
    // One of an ancestor is none: behind the fork it has other bytes.
    if (!file || (named > 0 && complete < segmentStart(n + 1n, segmentSize))) break;
    left = left[0]?.segment === n + 1n ? [file, ...left] : [file];
  }
  return left;
}

/**
 * Gives final names to those of `left` that are proved whole: all their records are good, from the
 * one that goes on in their first page to the one whose end is in the next file. Where the files
 * before or behind do not tell, it must be known that what lies behind was acknowledged. WAL that
 * was may be gone from the server. Returns the first one that is not proved: streaming starts there.
 *
 * @param acknowledged up to here the server or the ledger knows that the WAL was flushed here
 * @param finished awaited for each that got its name, before the next one gets it
 */
export async function finishLeft(
  directory: string,
  server: ServerState,
  left: readonly SegmentFile[],
  scan: Pick<DirectoryScan, 'segments' | 'newest'>,
  ledger: Ledger,
  acknowledged: bigint,
  fs: FileSystem,
  finished: (segment: FinishedSegment) => void | Promise<void> = () => {},
): Promise<SegmentFile | undefined> {
  const [first] = left;
  if (!first || !scan.newest) return first;
  const { segmentSize, fileMode } = server;
  const verify = (...files: SegmentFile[]) => verifyFiles(directory, server, files, fs);
  const before = scan.segments.find((s) => !s.partial && s.segment === first.segment - 1n);
  const behind = (left.at(-1) as SegmentFile).segment + 1n;
  const next = scan.segments.filter((s) => s.segment === behind && s.timeline === first.timeline);
  const { anchored, verifier } = await verify(
    ...(before ? [before] : []),
    ...left,
    ...next.slice(0, 1),
  );
  const validEnd = anchored ? verifier.validEnd : 0n;
  // Of a record that goes on in the next file the rest may be missing there: not looked at.
  const known = left.filter((f) => segmentStart(f.segment + 1n, segmentSize) <= acknowledged);
  const soundEnd = known.length > 0 ? (await verify(...known)).verifier.verifiedEnd : 0n;
  for (const file of left) {
    const end = segmentStart(file.segment + 1n, segmentSize);
    const proved = validEnd >= end || (acknowledged >= end && soundEnd >= end);
    if (!proved) return file;
    const name = segmentFileName(file.timeline, file.segment, segmentSize);
    const path = join(directory, `${name}.partial`);
    // A push was faster.
    if (fs.sizeSync(join(directory, name)) !== undefined) return file;
    const how = { mode: fileMode, fs };
    if (file.compression === 'none') {
      await storeAnew(path, join(directory, SPARE_NAME), segmentSize, how);
    } else {
      // There is no plain one beside it.
      await seedPartial(directory, name, [file], { ...how, segmentSize, sync: true });
    }
    // Before it can be moved away: what is left then would be taken for all that there is.
    await removeOthers(directory, file, scan.segments, segmentSize, fs);
    const { timeline } = file;
    // Also as the first that a new ledger says: from now on other tools may move the file away.
    const first = ledger.state.systemId === undefined ? opening(server, file) : [];
    await ledger.append(...first, { type: 'complete', lsn: end, timeline });
    await durableRename(path, join(directory, name), fs);
    await finished({ timeline, end, path: join(directory, name) });
  }
  return undefined;
}

/** Removes the compressed partials of a segment whose plain one is durable and has all of them. */
async function removeOthers(
  directory: string,
  { segment, timeline }: SegmentFile,
  files: readonly SegmentFile[],
  segmentSize: number,
  fs: FileSystem,
): Promise<void> {
  const plain = join(directory, `${segmentFileName(timeline, segment, segmentSize)}.partial`);
  const others = files.filter((f) => {
    const its = f.partial && f.segment === segment && f.timeline === timeline;
    return its && f.compression !== 'none';
  });
  if (others.length === 0) return;
  await fsyncDir(directory, fs);
  for (const { name, compression } of others) {
    const path = join(directory, name);
    if (!(await hasAllOf(plain, { path, compression }, segmentSize, fs))) continue;
    await fs.unlink(path).catch((e) => {
      throw storageError('remove file', path, e);
    });
  }
  await fsyncDir(directory, fs);
}

/** What a ledger begins with in a directory whose oldest left segment is that one. */
function opening(
  { systemId, segmentSize }: ServerState,
  { timeline, segment }: SegmentFile,
): LedgerEntry[] {
  return [
    { type: 'open', systemId, segmentSize, version: VERSION },
    { type: 'timeline', timeline, start: segmentStart(segment, segmentSize), why: 'adopted' },
  ];
}

/**
 * Removes the plain partials before the newest file whose compressed complete file is there and
 * holds the same: what a receiver leaves that was killed between the two steps. One that differs
 * stays, for `walkeep verify` to tell. @throws StorageError
 */
export async function removeCopies(
  directory: string,
  { segments, newest, segmentSize }: DirectoryScan,
  fs: FileSystem,
): Promise<void> {
  for (const file of segments) {
    if (!file.partial || file.compression !== 'none') continue;
    if (!newest || file.segment >= newest.segment) continue;
    const whole = segments.find(
      (s) => isCompressed(s) && s.segment === file.segment && s.timeline === file.timeline,
    );
    const path = join(directory, file.name);
    if (!whole) continue;
    const { name, compression } = whole;
    const other = { path: join(directory, name), compression };
    if (!(await sameContent(path, other, segmentSize, fs))) continue;
    // Its rename may not be durable yet, nor its content where that was not asked for.
    await fsyncLinked(other.path, fs);
    await fsyncDir(directory, fs);
    await fs.unlink(path).catch((e) => {
      throw storageError('remove file', path, e);
    });
  }
}

const isCompressed = (s: SegmentFile) => !s.partial && s.compression !== 'none';

/**
 * A verifier that was fed consecutive files. `anchored`: a record ended in the first of them, or
 * none goes on in its first page. Otherwise bytes of unknown origin were skipped there, without a
 * checksum over them.
 */
async function verifyFiles(
  directory: string,
  { segmentSize, systemId }: ServerState,
  files: readonly SegmentFile[],
  fs: FileSystem,
): Promise<{ verifier: WalVerifier; anchored: boolean }> {
  const [first, ...rest] = files as readonly [SegmentFile, ...SegmentFile[]];
  const { timeline } = files.at(-1) as SegmentFile;
  const startLsn = segmentStart(first.segment, segmentSize);
  const verifier = new WalVerifier({ startLsn, segmentSize, timeline, systemId });
  // A short file makes the next one fail at its first page.
  const stretch = ({ name, compression }: SegmentFile): StoredStretch => {
    return { path: join(directory, name), compression, limit: segmentSize };
  };
  let continues: boolean | undefined;
  await feedStored(verifier, [stretch(first)], fs, (chunk) => {
    continues ??= ((chunk[2] ?? 0) & XLP_FIRST_IS_CONTRECORD) !== 0;
  });
  const anchored = continues === false || (!first.partial && verifier.validEnd > startLsn);
  await feedStored(verifier, rest.map(stretch), fs);
  return { verifier, anchored };
}
