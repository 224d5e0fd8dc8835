import { join } from 'node:path';
import { readStoredHistory } from '../../archive/history.js';
import { type Identity, newestIdentity } from '../../archive/identity.js';
import { readStored } from '../../archive/lead-in.js';
import type { Ledger, LedgerState } from '../../archive/ledger.js';
import { lineageHistory } from '../../archive/ledger-entry.js';
import type { SegmentFile } from '../../archive/listing.js';
import { type DirectoryScan, scanDirectory } from '../../archive/wal-directory.js';
import { StorageError } from '../../errors.js';
import type { FileSystem } from '../../files/file-system.js';
import { formatLsn, type Lsn } from '../../lsn.js';
import type { ServerState, SlotState } from '../../server/server-state.js';
import { type SegmentName, segmentStart } from '../../wal/file-name.js';
import type { StoredHistory } from '../../wal/history-file.js';
import { type TimelineHistory, timelineEnd } from '../../wal/timeline.js';
import { WalVerifier } from '../../wal/verifier.js';
import { isBeside, type KnownEnd, knownEnd } from './branches.js';
import { readHistories } from './history-files.js';
import { leftSegments } from './left-segments.js';
import type { StartInputs } from './start-point.js';

export type LocalEnd = NonNullable<StartInputs['local']>;

/** What a start depends on, as it is found: the directory, its ledger, the server, its slot. */
export interface Observation {
  directory: string;
  server: ServerState;
  ledger: LedgerState;
  /** `segments` are those on the server's way. */
  scan: DirectoryScan;
  /** Segment files of other branches: they have the server's segment numbers, and other WAL. */
  besides: readonly SegmentFile[];
  identity: Identity | undefined;
  /** What is stored of the histories of the server's timelines. */
  histories: ReadonlyMap<number, StoredHistory>;
  /** Up to where the ledger knows the archive to be continuous, on the server's way. */
  known: KnownEnd | undefined;
  /** Full segments before the newest file that lack only their names, oldest first. */
  left: readonly SegmentFile[];
  /** Where the newest file leads to. */
  local: LocalEnd | undefined;
  /** Undefined: there is none, or nothing depends on it. */
  slot: SlotState | undefined;
  /** About files that are not as they should be. */
  warnings: readonly string[];
}

/**
 * Looks at a receiving directory; changes nothing.
 * @throws StorageError if it cannot be read, or is of another segment size
 */
export async function observeDirectory(
  directory: string,
  server: ServerState,
  { state }: Pick<Ledger, 'state'>,
  fs: FileSystem,
): Promise<Omit<Observation, 'slot'>> {
  const { scan, besides } = await scanForStart(directory, server, state, fs);
  requireReachable(scan, state);
  const warnings = [...scan.warnings];
  const identity = await newestIdentity(scan, fs);
  requireSegmentSize(directory, server, state, identity);
  const left = leftSegments(scan, state);
  const known = knownEnd(state, server, await followedHistory(directory, state, fs));
  const newest = left[0] ?? scan.newest;
  let local: LocalEnd | undefined;
  if (newest) {
    const found = await localEnd(newest, directory, server, known?.lsn, fs);
    local = found.local;
    if (found.warning !== undefined) warnings.push(found.warning);
  }
  const timelines = scan.histories.map((h) => h.timeline);
  const histories = await readHistories(directory, server, timelines, fs);
  return {
    ...{ directory, server, ledger: state, scan, besides, identity, histories },
    ...{ known, left, local, warnings },
  };
}

/**
 * Without a ledger nothing but the newest file tells where to go on: a link in its place whose disk is
 * not mounted is no leave to begin anew (pg_receivewal ends at any such link).
 */
function requireReachable(
  { directory, newest, lostLinks: [lost] }: DirectoryScan,
  { systemId }: LedgerState,
): void {
  if (!lost || systemId !== undefined || (newest && newest.segment > lost.segment)) return;
  const path = join(directory, lost.name);
  throw new StorageError(`could not stat file "${path}": it is a link that leads to no file`, {
    path,
    hint: 'See that the disk that it leads to is mounted; or remove the link, if nothing was there.',
  });
}

/** A directory of another segment size cannot be read with the server's. */
function requireSegmentSize(
  directory: string,
  { segmentSize, systemId }: ServerState,
  ledger: LedgerState,
  identity: Identity | undefined,
): void {
  const stored = ledger.systemId === undefined ? identity?.segmentSize : ledger.segmentSize;
  if (stored === undefined || stored === segmentSize) return;
  // Another cluster's is refused as that.
  if ((ledger.systemId ?? identity?.systemId) !== systemId) return;
  throw new StorageError(
    `the directory holds segments of ${stored} bytes, the server makes them of ${segmentSize}`,
    { path: directory, expected: `${stored}`, actual: `${segmentSize}` },
  );
}

/**
 * Scans for the newest segment on the server's lineage. After a failover the tail that only the old
 * primary had may reach further than what its successor has sent yet: from there nothing goes on.
 */
async function scanForStart(
  directory: string,
  server: ServerState,
  ledger: LedgerState,
  fs: FileSystem,
): Promise<{ scan: DirectoryScan; besides: SegmentFile[] }> {
  const { segmentSize, history } = server;
  const onWay = ({ timeline }: SegmentName) => !isBeside(timeline, server, ledger);
  const usable = (file: SegmentName): boolean => onWay(file) && isBeforeFork(file, server);
  const scan = await scanDirectory(directory, segmentSize, { usable, fs });
  const besides = scan.segments.filter((s) => !onWay(s));
  const own = { ...scan, segments: scan.segments.filter(onWay) };
  const known = ledger.timeline;
  if (scan.newest || scan.segments.length === 0) return { scan: own, besides };
  // Of the server's way nothing is here, and nothing is known: what is here has to refuse it.
  if (known === undefined && own.segments.length === 0) {
    return { scan: await scanDirectory(directory, segmentSize, { fs }), besides: [] };
  }
  // Only such a tail is here: it leads to the fork, unless more is known.
  const forked = known === undefined || timelineEnd(history, known) !== undefined;
  if (!forked) return { scan: own, besides };
  const { newest, atNewest } = await scanDirectory(directory, segmentSize, { usable: onWay, fs });
  return { scan: { ...own, newest, atNewest }, besides };
}

/** False for the tail that an ancestor was received beyond where the server left it. */
export function isBeforeFork(
  { timeline, segment }: SegmentName,
  { history, segmentSize }: ServerState,
): boolean {
  const fork = timelineEnd(history, timeline);
  return fork === undefined || segmentStart(segment, segmentSize) < fork;
}

/** What is known of the history of the timeline that was followed last. */
async function followedHistory(
  directory: string,
  ledger: LedgerState,
  fs: FileSystem,
): Promise<TimelineHistory | undefined> {
  if (ledger.timeline === undefined) return undefined;
  const stored = await readStoredHistory(directory, ledger.timeline, fs);
  return stored.state === 'good' ? stored.history : lineageHistory(ledger, ledger.timeline);
}

/**
 * Where streaming goes on behind the newest file. One of full size counts as a complete segment, as
 * it does for pg_receivewal, unless there is a ledger that would know of it.
 */
async function localEnd(
  newest: SegmentFile,
  directory: string,
  server: ServerState,
  ledgerEnd: Lsn | undefined,
  fs: FileSystem,
): Promise<{ local: LocalEnd; warning?: string }> {
  const { name, timeline, partial, compression, segment } = newest;
  const begin = segmentStart(segment, server.segmentSize);
  const end = segmentStart(segment + 1n, server.segmentSize);
  const empty = partial && compression === 'none' && newest.size === 0;
  const local = { lsn: partial ? begin : end, timeline, empty, file: name };
  if (partial || (ledgerEnd ?? 0n) >= end) return { local };
  const early = await endsEarly(newest, directory, server, fs);
  if (early === undefined) return { local };
  const what = `"${name}" has the size of a complete segment, but its WAL ends at ${formatLsn(early)}`;
  if (ledgerEnd !== undefined) {
    return { local: { ...local, lsn: begin }, warning: `${what}: it is received again` };
  }
  const rest = `what follows up to ${formatLsn(end)} is not received`;
  return { local, warning: `${what}: ${rest}; move the file away to have it received again` };
}

/**
 * Where the WAL of a complete file that the ledger does not know ends, if that is before the file
 * does: it was copied from a running server, for example.
 */
async function endsEarly(
  { name, compression, timeline, segment }: SegmentFile,
  directory: string,
  { segmentSize, systemId }: ServerState,
  fs: FileSystem,
): Promise<Lsn | undefined> {
  const startLsn = segmentStart(segment, segmentSize);
  const verifier = new WalVerifier({ startLsn, segmentSize, timeline, systemId });
  const feed = (chunk: Uint8Array): void => void verifier.feed(chunk);
  await readStored({ path: join(directory, name), compression }, segmentSize, feed, fs);
  const { fault, validEnd } = verifier;
  // Another cluster's is refused elsewhere.
  const whole = !fault || validEnd >= segmentStart(segment + 1n, segmentSize);
  return whole || fault.kind === 'system-identifier' ? undefined : validEnd;
}
