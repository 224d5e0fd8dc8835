import { join } from 'node:path';
import type { Ledger } from '../../archive/ledger.js';
import { lineageHistory, wasFollowed } from '../../archive/ledger-entry.js';
import { readStoredHistory } from '../../archive/stored-history.js';
import { identify, type SegmentFile, scanDirectory } from '../../archive/wal-directory.js';
import type { ReplicationConnection } from '../../connection/connection.js';
import { StorageError } from '../../errors.js';
import { type FileSystem, nodeFileSystem } from '../../files/file-system.js';
import { formatLsn, type Lsn } from '../../lsn.js';
import { readSlot, type ServerState } from '../../server/server-state.js';
import { type SegmentName, segmentOf, segmentStart } from '../../wal/file-name.js';
import { type TimelineHistory, timelineEnd } from '../../wal/timeline.js';
import { WalVerifier } from '../../wal/verifier.js';
import type { WalReceiverOptions } from '../options.js';
import type { Refusal } from '../refusals.js';
import type { RemovedWal } from '../removed-wal.js';
import type { WriteReport } from '../target/paced-target.js';
import { readStored } from './anchor.js';
import { isBeside, knownEnd, strangerWarning } from './branches.js';
import { checkHistories, mendHistories } from './history-files.js';
import { isStoredGood } from './known-wal.js';
import { finishLeft, leftSegments, removeCopies } from './left-segments.js';
import { chooseStart, completeBeyond, type StartInputs, type StartPoint } from './start-point.js';

type Warn = (code: string, message: string) => void;

/** How a directory is opened for one connection. */
export interface OpenOptions {
  /** What servers said that they lack. */
  removed: Pick<RemovedWal, 'goesOver' | 'behindNewestGone' | 'lastSegmentGone' | 'released'>;
  /** The server said that the slot is invalid. */
  slotInvalid: boolean;
  /** WAL that failed the check: start in its segment, unless it is stored good. */
  refused: Refusal | undefined;
  writeReport: WriteReport;
  warn: Warn;
  /** Where the directory is; for tests. */
  fs?: FileSystem;
}

/** Where streaming begins, and what lies there. */
export interface ChosenStart {
  start: StartPoint;
  /** WAL that failed the check and is asked for again. */
  again: Refusal | undefined;
  /** The start is the end of the newest file, and the ledger has complete segments behind it. */
  completeBeyond: boolean;
  /** End of the segment at the start if it lacks only its name, and the slot cannot be asked. */
  unproved: Lsn | undefined;
}

/** Files that vanish one after the other while the directory is looked at, at most. */
const MOST_VANISHED = 100;

/**
 * As `choose`; looks again where another program moves a complete file away meanwhile, as Barman
 * does at any time.
 */
export async function chooseFor(...args: Parameters<typeof choose>): Promise<ChosenStart> {
  for (let tries = 0; ; tries++) {
    try {
      return await choose(...args);
    } catch (e) {
      const { code } = ((e as Error).cause ?? {}) as NodeJS.ErrnoException;
      if (code !== 'ENOENT' || tries === MOST_VANISHED) throw e;
    }
  }
}

/**
 * Gathers what the choice of a start depends on: the directory, the ledger, the slot; gives full
 * segments that lack only their names those. @throws everything that `chooseStart` throws,
 * TimelineConflictError, StorageError
 */
async function choose(
  o: WalReceiverOptions,
  connection: ReplicationConnection,
  server: ServerState,
  ledger: Ledger,
  options: OpenOptions,
): Promise<ChosenStart> {
  const { removed, warn, fs = nodeFileSystem } = options;
  const { segmentSize } = server;
  const { directory } = o;
  const scan = await scanForStart(directory, server, ledger, fs);
  for (const w of scan.warnings) warn('WK_SCAN', w);
  const identity = await identify(directory, scan, fs);
  const stored =
    ledger.state.systemId === undefined ? identity?.segmentSize : ledger.state.segmentSize;
  const systemId = ledger.state.systemId ?? identity?.systemId;
  if (stored !== undefined && stored !== segmentSize && systemId === server.systemId) {
    throw new StorageError(
      `the directory holds segments of ${stored} bytes, the server makes them of ${segmentSize}`,
      { path: directory, expected: `${stored}`, actual: `${segmentSize}` },
    );
  }
  const left = leftSegments(scan, ledger);
  const newest = left[0] ?? scan.newest;
  const ledgerEnd = knownEnd(ledger.state, server, await followedHistory(directory, ledger, fs));
  const inputs: StartInputs = {
    segmentSize,
    server,
    acceptGap: o.acceptGap ?? false,
    refuseGaps: o.refuseGaps ?? true,
    walRemoved: removed.goesOver,
    behindNewestGone: removed.behindNewestGone,
    lastSegmentGone: removed.lastSegmentGone,
    ...(identity ? { localSystemId: identity.systemId } : {}),
    ...(ledger.state.systemId === undefined
      ? {}
      : {
          ledger: {
            systemId: ledger.state.systemId,
            ...(ledgerEnd ? { end: ledgerEnd } : {}),
            // Of an abandoned branch it says nothing about the server's way.
            ...(ledger.state.completeLsn && ledgerEnd?.timeline === ledger.state.timeline
              ? { complete: ledger.state.completeLsn }
              : {}),
          },
        }),
  };
  if (newest) {
    inputs.local = await localEnd(newest, directory, server, ledgerEnd?.lsn, options);
    if (ledgerEnd) {
      const onWay = scan.segments.filter((s) => isBeforeFork(s, server));
      const fork = timelineEnd(server.history, ledgerEnd.timeline);
      const end = fork !== undefined && fork < ledgerEnd.lsn ? fork : ledgerEnd.lsn;
      inputs.localReachesLedger = reaches(onWay, newest, segmentOf(end, segmentSize));
    }
  }
  if (o.slot !== undefined && (!newest || o.ensureSlot || removed.goesOver)) {
    const { slotInvalid: invalid } = options;
    const slot = await readSlot(connection, o.slot, { ensure: o.ensureSlot ?? false, invalid });
    inputs.slot = slot;
    // Once: this function may call itself.
    options.slotInvalid = false;
    if (slot.replaced) {
      warn('WK_SLOT', `replication slot "${o.slot}" kept no WAL; it was dropped and created again`);
    }
  }
  const filesAt = (lsn: Lsn) =>
    scan.segments.filter((s) => s.segment === segmentOf(lsn, segmentSize));
  // Identity first: histories of another cluster would be called a conflict.
  let start = chooseStart(inputs);
  let again = options.refused;
  // What was refused of another branch is not wanted any more.
  if (again && isBeside(again.timeline, server, ledger.state)) again = undefined;
  if (again) {
    const at = { ...server, startLsn: start.lsn };
    // Also an ancestor's: its child's may hold the damage that the ancestor's does not.
    const partials = filesAt(start.lsn).filter((f) => f.partial);
    if (await isStoredGood(again.verifiedEnd, directory, at, partials, fs)) again = undefined;
    else {
      const back = chooseStart({ ...inputs, again: { ...again, lsn: again.verifiedEnd } });
      // A segment before it that lacks its name comes first: the record that it ends with may go on.
      const further = back.lsn < start.lsn || back.timeline < start.timeline;
      if (further) start = back;
    }
  }
  const timelines = scan.histories.map((h) => h.timeline);
  const followed = (timeline: number) => wasFollowed(ledger.state, timeline);
  const damaged = await checkHistories(directory, server, timelines, { fs, followed });
  await mendHistories(damaged, { directory, connection, server, sync: o.sync !== false, fs, warn });
  await removeCopies(directory, scan, fs);
  const known = async (file: SegmentFile) => {
    const { released } = removed;
    const told = await acknowledgedOn(file, o, connection, server, ledger);
    return released?.timeline === file.timeline && released.lsn > told ? released.lsn : told;
  };
  const inRow = left.length === 0 || left.at(-1)?.segment === (scan.newest?.segment ?? 0n) - 1n;
  if (!again && inRow && scan.newest && mayBeWhole(scan.newest, server)) {
    // Beyond its end nothing was acknowledged, or there were a next file: a slot that stands further
    // on was made anew or moved by another, and tells nothing of what is here.
    const end = segmentStart(scan.newest.segment + 1n, segmentSize);
    if ((await known(scan.newest)) === end) left.push(scan.newest);
  }
  const [oldest] = left;
  if (oldest) {
    const first = await finishLeft(directory, server, left, scan, ledger, await known(oldest), fs);
    if (first !== oldest) return choose(o, connection, server, ledger, options);
  }
  const silentSlot = o.slot !== undefined && connection.serverVersion < 150000;
  const atOldest = oldest !== undefined && segmentStart(oldest.segment, segmentSize) === start.lsn;
  const unproved =
    silentSlot && atOldest && !again ? segmentStart(oldest.segment + 1n, segmentSize) : undefined;
  const beyond = start.reason === 'local' && !again && completeBeyond(inputs) !== undefined;
  const notes = ledgerEnd?.warning === undefined ? [] : [ledgerEnd.warning];
  const strangers = [...new Set([...scan.besides, ...scan.histories].map((f) => f.timeline))]
    .filter((t) => t > server.timeline && isBeside(t, server, ledger.state))
    .sort((a, b) => a - b);
  if (strangers.length > 0) notes.push(strangerWarning(strangers, server));
  start = { ...start, warnings: [...notes, ...start.warnings] };
  return { start, again, completeBeyond: beyond, unproved };
}

type LocalEnd = NonNullable<StartInputs['local']>;

/**
 * Where streaming goes on behind the newest file. One of full size counts as a complete segment, as
 * it does for pg_receivewal, unless there is a ledger that would know of it.
 */
async function localEnd(
  newest: SegmentFile,
  directory: string,
  server: ServerState,
  ledgerEnd: Lsn | undefined,
  { warn, fs = nodeFileSystem }: OpenOptions,
): Promise<LocalEnd> {
  const { name, timeline, partial, compression, segment } = newest;
  const begin = segmentStart(segment, server.segmentSize);
  const end = segmentStart(segment + 1n, server.segmentSize);
  const empty = partial && compression === 'none' && newest.size === 0;
  const local = { lsn: partial ? begin : end, timeline, empty, file: name };
  if (partial || (ledgerEnd ?? 0n) >= end) return local;
  const early = await endsEarly(newest, directory, server, fs);
  if (early === undefined) return local;
  const what = `"${name}" has the size of a complete segment, but its WAL ends at ${formatLsn(early)}`;
  if (ledgerEnd !== undefined) {
    warn('WK_SCAN', `${what}: it is received again`);
    return { ...local, lsn: begin };
  }
  const rest = `what follows up to ${formatLsn(end)} is not received`;
  warn('WK_SCAN', `${what}: ${rest}; move the file away to have it received again`);
  return local;
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

/**
 * True if the newest file may hold a whole segment that only lacks its name. After an acknowledgement
 * of exactly its end the server may remove that segment: it cannot be asked for again.
 */
function mayBeWhole(file: SegmentFile, { segmentSize, flushLsn, history }: ServerState): boolean {
  // How much a compressed one holds is seen when it is read.
  if (!file.partial || (file.compression === 'none' && file.size !== segmentSize)) return false;
  const end = segmentStart(file.segment + 1n, segmentSize);
  const fork = timelineEnd(history, file.timeline);
  return flushLsn >= end && (fork === undefined || fork >= end);
}

/** Up to where WAL on the file's timeline was flushed here, as the ledger or the slot remembers. */
async function acknowledgedOn(
  file: SegmentFile,
  o: WalReceiverOptions,
  connection: ReplicationConnection,
  server: ServerState,
  ledger: Ledger,
): Promise<bigint> {
  const { timeline, flushedLsn = 0n } = ledger.state;
  const recorded = timeline === file.timeline ? flushedLsn : 0n;
  if (o.slot === undefined) return recorded;
  const { restartLsn = 0n } = await readSlot(connection, o.slot, { ensure: false });
  const fork = timelineEnd(server.history, file.timeline);
  if (fork !== undefined && restartLsn > fork) return recorded > fork ? recorded : fork;
  return restartLsn > recorded ? restartLsn : recorded;
}

/**
 * Scans for the newest segment on the server's lineage. After a failover the tail that only the old
 * primary had may reach further than what its successor has sent yet: from there nothing goes on.
 */
async function scanForStart(
  directory: string,
  server: ServerState,
  ledger: Ledger,
  fs: FileSystem,
) {
  const { segmentSize, history } = server;
  const usable = (file: SegmentName): boolean =>
    !isBeside(file.timeline, server, ledger.state) && isBeforeFork(file, server);
  const scan = await scanDirectory(directory, segmentSize, { usable, fs });
  // Those of another branch have the segment numbers of the server's, and other WAL.
  const onWay = ({ timeline }: SegmentName) => !isBeside(timeline, server, ledger.state);
  const besides = scan.segments.filter((s) => !onWay(s));
  const own = { ...scan, segments: scan.segments.filter(onWay), besides };
  const known = ledger.state.timeline;
  if (scan.newest || scan.segments.length === 0) return own;
  // Of the server's way nothing is here, and nothing is known: what is here has to refuse it.
  if (known === undefined && own.segments.length === 0) {
    return { ...(await scanDirectory(directory, segmentSize, { fs })), besides: [] };
  }
  // Only such a tail is here: it leads to the fork, unless more is known.
  const forked = known === undefined || timelineEnd(history, known) !== undefined;
  if (!forked) return own;
  const { newest, atNewest } = await scanDirectory(directory, segmentSize, { usable: onWay, fs });
  return { ...own, newest, atNewest };
}

/** What is known of the history of the timeline that was followed last. */
async function followedHistory(
  directory: string,
  { state }: Ledger,
  fs: FileSystem,
): Promise<TimelineHistory | undefined> {
  if (state.timeline === undefined) return undefined;
  const stored = await readStoredHistory(directory, state.timeline, fs);
  return stored.state === 'good' ? stored.history : lineageHistory(state, state.timeline);
}

/** False for the tail that an ancestor was received beyond where the server left it. */
function isBeforeFork({ timeline, segment }: SegmentName, { history, segmentSize }: ServerState) {
  const fork = timelineEnd(history, timeline);
  return fork === undefined || segmentStart(segment, segmentSize) < fork;
}

/** True if a complete file of every segment from `from` up to the newest is there. */
function reaches(segments: readonly SegmentFile[], newest: SegmentFile, from: bigint): boolean {
  const complete = new Set(segments.filter((s) => !s.partial).map((s) => s.segment));
  for (let n = from; n < newest.segment; n += 1n) if (!complete.has(n)) return false;
  return true;
}
