import { dirname } from 'node:path';
import type { Archive } from '../archive/archive.js';
import { standsBeside } from '../archive/catalog-lineage.js';
import type { KnownWal } from '../archive/good-wal.js';
import { findHistory } from '../archive/history.js';
import { newestIdentity } from '../archive/identity.js';
import { wasFollowed } from '../archive/ledger-entry.js';
import { openDirectory } from '../archive/places/directory-archive.js';
import { identifySegment } from '../archive/segment-identity.js';
import { scanDirectory } from '../archive/wal-directory.js';
import { StorageError, SystemIdentifierError, UsageError } from '../errors.js';
import type { Lsn } from '../lsn.js';
import { faultToError } from '../wal/fault.js';
import {
  historyFileName,
  isValidSegmentSize,
  parseHistoryFileName,
  parseSegmentFileName,
  type SegmentName,
  segmentStart,
} from '../wal/file-name.js';
import { LONG_PAGE_HEADER } from '../wal/page.js';
import { type TimelineHistory, timelineEnd } from '../wal/timeline.js';
import { WalVerifier } from '../wal/verifier.js';
import type { PushSource } from './place.js';

/** Enough for the header of the first page, whatever the block size. */
const FIRST_PAGE = 8192;

const CHUNK = 1024 * 1024;

/** What a segment's name says. @throws UsageError if the file's size is that of no segment */
export function requireSegment({ path, name, size }: PushSource): SegmentName {
  const parsed = isValidSegmentSize(size) ? parseSegmentFileName(name, size) : undefined;
  if (parsed) return parsed;
  throw new UsageError(`"${path}" has ${size} bytes, which is no segment of that name`, {
    path,
    actual: `${size}`,
  });
}

/**
 * Proves by its first page that a file is the segment it is called: address, size, a timeline that
 * its own descends from, and the cluster that the archive is of.
 * @throws CorruptWalError, NotSupportedError, SystemIdentifierError, StorageError
 */
export async function checkSource(
  source: PushSource,
  segment: SegmentName,
  archive: Archive,
): Promise<KnownWal> {
  const { path, size } = source;
  const expected = await archiveCluster(archive, size);
  if (expected && expected.segmentSize !== size) {
    throw new StorageError(
      `"${path}" has ${size} bytes, the archive holds segments of ${expected.segmentSize}`,
      { path, expected: `${expected.segmentSize}`, actual: `${size}` },
    );
  }
  const places = [archive, openDirectory(dirname(path))];
  return checkFirstPage(source, segment, expected?.systemId, places);
}

/**
 * As `checkSource`, where the archive itself sees to the size.
 * @param systemId of the archive, as far as it is known
 * @param places have the histories
 */
export async function checkFirstPage(
  source: PushSource,
  segment: SegmentName,
  systemId: bigint | undefined,
  places: readonly Pick<Archive, 'history'>[],
): Promise<KnownWal> {
  const { handle, path, size } = source;
  const page = Buffer.alloc(FIRST_PAGE);
  await handle.read(page, 0, FIRST_PAGE, 0);
  const found = identifySegment(page, { name: source.name, systemId, segmentSize: size });
  if (found.state === 'foreign') {
    throw new SystemIdentifierError(`"${path}" is of another cluster than the archive`, {
      path,
      expected: String(systemId),
      actual: String(found.header.systemId),
    });
  }
  const history = await findHistory(segment.timeline, places);
  const verifier = new WalVerifier({
    startLsn: segmentStart(segment.segment, size),
    segmentSize: size,
    timeline: segment.timeline,
    history,
    systemId,
  });
  // Its header alone: the WAL of a partial file may end within the page.
  const fault = verifier.feed(page, 0, LONG_PAGE_HEADER);
  if (fault) throw faultToError({ ...fault, message: `"${path}": ${fault.message}` });
  if (found.state !== 'this') {
    throw new StorageError(`"${path}" does not begin as a WAL segment`, { path });
  }
  return { systemId: found.header.systemId, history };
}

/**
 * Looks at all records of a complete segment. `whole`: a receiver that finds it under its final name
 * may go on behind it. `cut`: good WAL that stops, as in the segment in which a timeline ended; with
 * archive_mode = always a standby archives that under its full name.
 * @throws CorruptWalError if it is damaged, StorageError
 */
export async function inspectSource(
  { handle, path, size }: PushSource,
  segment: SegmentName,
  archive: Archive,
  known: KnownWal,
): Promise<'whole' | 'cut'> {
  const startLsn = segmentStart(segment.segment, size);
  const { timeline } = segment;
  const verifier = new WalVerifier({ startLsn, segmentSize: size, timeline, ...known });
  const chunk = Buffer.alloc(Math.min(CHUNK, size));
  for (let at = 0; at < size; ) {
    const { bytesRead } = await handle.read(chunk, 0, Math.min(chunk.length, size - at), at);
    if (bytesRead === 0) throw new StorageError(`"${path}" became shorter`, { path });
    verifier.feed(chunk, 0, bytesRead);
    at += bytesRead;
  }
  const { fault, validEnd } = verifier;
  if (!fault) return 'whole';
  if (verifier.end().kind === 'zeros') return 'cut';
  // Behind the end of a timeline lies what the file held before.
  const ends = await timelineEnds(timeline, [archive, openDirectory(dirname(path))]);
  if (ends.some((end) => end > startLsn && end <= validEnd)) return 'cut';
  throw faultToError({ ...fault, message: `"${path}": ${fault.message}` });
}

/** Where a timeline ended, by the history files of its descendants. */
export async function timelineEnds(timeline: number, places: readonly Archive[]): Promise<Lsn[]> {
  const ends: Lsn[] = [];
  for (const place of places) {
    for (const { name } of await place.list()) {
      const child = parseHistoryFileName(name) ?? 0;
      if (child <= timeline) continue;
      const history = await findHistory(child, [place]).catch(() => undefined);
      const end = history && timelineEnd(history, timeline);
      if (end !== undefined) ends.push(end);
    }
  }
  return ends;
}

/** The cluster of an archive: its ledger's, else that of its newest file; undefined if it has none. */
async function archiveCluster(archive: Archive, segmentSize: number) {
  const ledger = await archive.ledger();
  if (ledger?.systemId !== undefined) {
    return { systemId: ledger.systemId, segmentSize: ledger.segmentSize };
  }
  return newestIdentity(await scanDirectory(archive.place, segmentSize));
}

/**
 * True for a timeline that the archive can never go on with: one with a lower number than that which
 * is received, which was never received itself, is no ancestor, and of which nothing is here. Its
 * server is a clone, or a standby that was promoted beside another one. Of what is here already the
 * rest must be found as well: a recovery to it would end early.
 */
export async function isPassedBy(
  timeline: number,
  history: TimelineHistory | undefined,
  archive: Archive,
): Promise<boolean> {
  const ledger = await archive.ledger();
  if (ledger?.timeline === undefined || timeline >= ledger.timeline) return false;
  const received = await findHistory(ledger.timeline, [archive]);
  if (!received || wasFollowed(ledger, timeline)) return false;
  if (standsBeside(timeline, history, [received], ledger) !== 'abandoned') return false;
  const prefix = historyFileName(timeline).slice(0, 8);
  return !(await archive.list()).some(({ name }) => name.startsWith(prefix));
}
