import { wasFollowed } from '../../archive/ledger-entry.js';
import type { SegmentFile } from '../../archive/listing.js';
import type { Lsn } from '../../lsn.js';
import type { ServerState } from '../../server/server-state.js';
import { segmentOf, segmentStart } from '../../wal/file-name.js';
import { timelineEnd } from '../../wal/timeline.js';
import { isBeside, strangerWarning } from './branches.js';
import { checkHistories } from './history-files.js';
import { isBeforeFork, type Observation } from './observe.js';
import type { ServerLacks } from './removed-wal.js';
import { chooseStart, completeBeyond, type StartInputs, type StartPoint } from './start-point.js';

/** WAL that failed the check and is asked for again. */
export interface RefusedWal {
  /** The one that `verifiedEnd` lies on. */
  timeline: number;
  /** V: nothing below is known to be bad; bytes from here on may be replaced. */
  verifiedEnd: Lsn;
}

/** What the choice of a start depends on beside what is found: what was said before, and wishes. */
export interface StartTerms {
  slot: string | undefined;
  /** It is made if it is not there. */
  ensureSlot: boolean;
  /** The server can tell of slots (15 and newer). */
  tellsOfSlots: boolean;
  acceptGap: boolean;
  /** False: a gap is warned of and gone over, as pg_receivewal does. */
  refuseGaps: boolean;
  /** What servers said that they lack. */
  removed: ServerLacks;
  /** Start in its segment, unless it is stored good. */
  refused: RefusedWal | undefined;
}

/** Where streaming begins, and what lies there. */
export interface ChosenStart {
  start: StartPoint;
  /** WAL that failed the check and is asked for again. */
  again: RefusedWal | undefined;
  /** The start is the end of the newest file, and the ledger has complete segments behind it. */
  completeBeyond: boolean;
  /** End of the segment at the start if it lacks only its name, and the slot cannot be asked. */
  unproved: Lsn | undefined;
}

/** What has to be put in order before streaming begins. */
export interface Repairs {
  /** Timelines whose history files are damaged. */
  histories: readonly number[];
  /** Full segments that are to be given their names, oldest first, if they prove whole. */
  unnamed: readonly SegmentFile[];
  /** Up to here the WAL on the timeline of the oldest of them was flushed here. */
  acknowledged: bigint;
}

/** What `chooseStart` is told of what was found. */
export function startInputs(seen: Observation, terms: StartTerms): StartInputs {
  const { server, ledger, known, local, slot } = seen;
  const { removed, acceptGap, refuseGaps } = terms;
  const cluster = clusterInputs(seen);
  const inputs: StartInputs = {
    segmentSize: server.segmentSize,
    ...{ acceptGap, refuseGaps, ...cluster },
    walRemoved: removed.goesOver,
    behindNewestGone: removed.behindNewestGone,
    lastSegmentGone: removed.lastSegmentGone,
    ...(slot && dependsOnSlot(seen, terms) ? { slot } : {}),
  };
  if (cluster.ledger) {
    inputs.ledger = {
      ...cluster.ledger,
      ...(known ? { end: known } : {}),
      // Of an abandoned branch it says nothing about the server's way.
      ...(ledger.completeLsn && known?.timeline === ledger.timeline
        ? { complete: ledger.completeLsn }
        : {}),
    };
  }
  if (local) {
    inputs.local = local;
    if (known) inputs.localReachesLedger = reachesLedger(seen, known);
  }
  return inputs;
}

/** Whose WAL is here, and whose the server has. */
export function clusterInputs({
  server,
  ledger,
  identity,
}: Pick<Observation, 'server' | 'ledger' | 'identity'>): Pick<
  StartInputs,
  'server' | 'ledger' | 'localSystemId'
> {
  return {
    server,
    ...(ledger.systemId === undefined ? {} : { ledger: { systemId: ledger.systemId } }),
    ...(identity ? { localSystemId: identity.systemId } : {}),
  };
}

/** True if the place of the slot may be the start. */
export function dependsOnSlot({ scan }: Pick<Observation, 'scan'>, terms: StartTerms): boolean {
  return !scan.newest || terms.ensureSlot || terms.removed.goesOver;
}

/** True if the slot may tell whether a full segment that lacks its name was acknowledged. */
export function asksSlotForNames({
  left,
  scan,
  server,
}: Pick<Observation, 'left' | 'scan' | 'server'>): boolean {
  return left.length > 0 || (scan.newest !== undefined && mayBeWhole(scan.newest, server));
}

/** What was refused, unless it is of another branch: that is not wanted any more. */
export function refusedOnWay(seen: Observation, { refused }: StartTerms): RefusedWal | undefined {
  return refused && !isBeside(refused.timeline, seen.server, seen.ledger) ? refused : undefined;
}

/** Partials in the segment where streaming would begin. */
export function partialsAt({ scan, server }: Observation, lsn: Lsn): SegmentFile[] {
  const segment = segmentOf(lsn, server.segmentSize);
  // Also an ancestor's: its child's may hold the damage that the ancestor's does not.
  return scan.segments.filter((s) => s.partial && s.segment === segment);
}

/**
 * Decides where streaming begins and what is to be put in order before. Pure.
 * @param inputs of `seen` and `terms`
 * @param again WAL to be asked for again: it is not stored good
 * @throws everything that `chooseStart` throws, TimelineConflictError
 */
export function decide(
  seen: Observation,
  terms: StartTerms,
  inputs: StartInputs,
  again: RefusedWal | undefined,
): { chosen: ChosenStart; repairs: Repairs } {
  const { server, ledger, known, scan, directory } = seen;
  const { segmentSize } = server;
  // Identity first: histories of another cluster would be called a conflict.
  const start = again ? startAgain(inputs, again) : chooseStart(inputs);
  const followed = (timeline: number) => wasFollowed(ledger, timeline);
  const histories = checkHistories(seen.histories, server, { directory, followed });
  const unnamed = again ? seen.left : withNewest(seen, terms);
  const [oldest] = unnamed;
  const acknowledged = oldest ? acknowledgedOn(oldest.timeline, seen, terms) : 0n;
  const silentSlot = terms.slot !== undefined && !terms.tellsOfSlots;
  const newest = scan.newest && mayBeWhole(scan.newest, server) ? scan.newest : undefined;
  const doubted = silentSlot && !again ? (oldest ?? newest) : undefined;
  const unproved =
    doubted && segmentStart(doubted.segment, segmentSize) === start.lsn
      ? segmentStart(doubted.segment + 1n, segmentSize)
      : undefined;
  const notes = known?.warning === undefined ? [] : [known.warning];
  const strangers = [...new Set([...seen.besides, ...scan.histories].map((f) => f.timeline))]
    .filter((t) => t > server.timeline && isBeside(t, server, ledger))
    .sort((a, b) => a - b);
  if (strangers.length > 0) notes.push(strangerWarning(strangers, server));
  return {
    chosen: {
      start: { ...start, warnings: [...notes, ...start.warnings] },
      ...{ again, unproved },
      completeBeyond: start.reason === 'local' && !again && completeBeyond(inputs) !== undefined,
    },
    repairs: { histories, unnamed, acknowledged },
  };
}

/** A segment before it that lacks its name comes first: the record that it ends with may go on. */
function startAgain(inputs: StartInputs, again: RefusedWal): StartPoint {
  const start = chooseStart(inputs);
  const { timeline, verifiedEnd: lsn } = again;
  const back = chooseStart({ ...inputs, again: { timeline, lsn } });
  return back.lsn < start.lsn || back.timeline < start.timeline ? back : start;
}

/** True if a complete file of every segment from the ledger's end up to the newest is there. */
function reachesLedger(
  { scan, left, server }: Observation,
  known: { lsn: Lsn; timeline: number },
): boolean {
  const newest = (left[0] ?? scan.newest) as SegmentFile;
  const fork = timelineEnd(server.history, known.timeline);
  const end = fork !== undefined && fork < known.lsn ? fork : known.lsn;
  const complete = new Set(
    scan.segments.filter((s) => !s.partial && isBeforeFork(s, server)).map((s) => s.segment),
  );
  for (let n = segmentOf(end, server.segmentSize); n < newest.segment; n += 1n) {
    if (!complete.has(n)) return false;
  }
  return true;
}

/**
 * The segments that lack their names, with the newest if all of it was acknowledged. Beyond its end
 * nothing was, or there were a next file: a slot that stands further on was made anew or moved by
 * another, and tells nothing of what is here.
 */
function withNewest(seen: Observation, terms: StartTerms): readonly SegmentFile[] {
  const { left, scan, server } = seen;
  const { newest } = scan;
  const inRow = left.length === 0 || left.at(-1)?.segment === (newest?.segment ?? 0n) - 1n;
  if (!newest || !inRow || !mayBeWhole(newest, server)) return left;
  const end = segmentStart(newest.segment + 1n, server.segmentSize);
  return acknowledgedOn(newest.timeline, seen, terms) === end ? [...left, newest] : left;
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

/** Up to where WAL on a timeline was flushed here, as the ledger, the slot or the server tells. */
function acknowledgedOn(
  timeline: number,
  { ledger, server, slot }: Observation,
  { removed: { released } }: StartTerms,
): bigint {
  const told = [ledger.timeline === timeline ? (ledger.flushedLsn ?? 0n) : 0n];
  if (slot) {
    const { restartLsn = 0n } = slot;
    const fork = timelineEnd(server.history, timeline);
    told.push(fork !== undefined && restartLsn > fork ? fork : restartLsn);
  }
  if (released?.timeline === timeline) told.push(released.lsn);
  return told.reduce((most, lsn) => (lsn > most ? lsn : most));
}
