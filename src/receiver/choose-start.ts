import { join } from 'node:path';
import type { ReplicationConnection } from '../connection/connection.js';
import { StorageError } from '../errors.js';
import { type FileSystem, nodeFileSystem } from '../storage/file-system.js';
import type { Ledger } from '../storage/ledger.js';
import { identify, type SegmentFile, scanDirectory } from '../storage/wal-directory.js';
import { type SegmentName, segmentOf, segmentStart } from '../wal/file-name.js';
import { formatLsn, type Lsn } from '../wal/lsn.js';
import { timelineEnd } from '../wal/timeline.js';
import { WalVerifier } from '../wal/verifier.js';
import { readStored } from './anchor.js';
import { checkHistories } from './history-files.js';
import { isStoredGood } from './known-wal.js';
import { finishLeft, leftSegments, removeCopies } from './left-segments.js';
import type { WalReceiverOptions } from './options.js';
import type { Refusal } from './refusals.js';
import { readSlot, type ServerState } from './server-state.js';
import { chooseStart, type StartInputs, type StartPoint } from './start-point.js';
import type { WriteReport } from './stream.js';

type Warn = (code: string, message: string) => void;

/** How a directory is opened for one connection. */
export interface OpenOptions {
  /** The server said that it lacks the WAL wanted, and going over that is accepted. */
  walRemoved: boolean;
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
  const { walRemoved, warn, fs = nodeFileSystem } = options;
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
  const timelines = new Set([...scan.histories.map((h) => h.timeline)]);
  const ledgerEnd =
    ledger.state.end !== undefined && ledger.state.timeline !== undefined
      ? { lsn: ledger.state.end, timeline: ledger.state.timeline }
      : undefined;
  const inputs: StartInputs = {
    segmentSize,
    server,
    acceptGap: o.acceptGap ?? false,
    refuseGaps: o.refuseGaps ?? true,
    walRemoved,
    ...(identity ? { localSystemId: identity.systemId } : {}),
    ...(ledger.state.systemId === undefined
      ? {}
      : {
          ledger: {
            systemId: ledger.state.systemId,
            ...(ledgerEnd ? { end: ledgerEnd } : {}),
          },
        }),
  };
  if (newest) {
    inputs.local = await localEnd(newest, directory, server, ledgerEnd?.lsn, options);
    if (ledgerEnd) {
      inputs.localReachesLedger = reaches(
        scan.segments,
        newest,
        segmentOf(ledgerEnd.lsn, segmentSize),
      );
    }
  }
  if (o.slot !== undefined && (!newest || o.ensureSlot || walRemoved)) {
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
  await checkHistories(directory, server, [...timelines], fs);
  await removeCopies(directory, scan, fs);
  const known = (file: SegmentFile) => acknowledgedOn(file, o, connection, server, ledger);
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
  return { start, again };
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
  const usable = ({ timeline, segment }: SegmentName): boolean => {
    const fork = timelineEnd(history, timeline);
    return fork === undefined || segmentStart(segment, segmentSize) < fork;
  };
  const scan = await scanDirectory(directory, segmentSize, { usable, fs });
  if (scan.newest || !scan.segments.length) return scan;
  // Only such a tail is here: it leads to the fork, unless more is known.
  const known = ledger.state.timeline;
  const forked = known === undefined || timelineEnd(history, known) !== undefined;
  return forked ? scanDirectory(directory, segmentSize, { fs }) : scan;
}

/** True if a complete file of every segment from `from` up to the newest is there. */
function reaches(segments: readonly SegmentFile[], newest: SegmentFile, from: bigint): boolean {
  const complete = new Set(segments.filter((s) => !s.partial).map((s) => s.segment));
  for (let n = from; n < newest.segment; n += 1n) if (!complete.has(n)) return false;
  return true;
}
