import {
  GapError,
  SystemIdentifierError,
  TimelineBehindError,
  TimelineConflictError,
} from '../../errors.js';
import { formatLsn, type Lsn } from '../../lsn.js';
import { floorToSegment } from '../../wal/file-name.js';
import {
  childTimeline,
  isInHistory,
  type TimelineHistory,
  timelineEnd,
} from '../../wal/timeline.js';

/** Everything that the choice of a start depends on; gathered elsewhere, decided here. */
export interface StartInputs {
  segmentSize: number;
  server: { systemId: bigint; timeline: number; flushLsn: Lsn; history: TimelineHistory };
  /** Newest segment file: `lsn` is its end if complete, its start if partial. */
  local?: { lsn: Lsn; timeline: number; empty: boolean; file: string };
  /** Identity read from a stored page header, if any file has one. */
  localSystemId?: bigint;
  ledger?: { systemId: bigint; end?: { lsn: Lsn; timeline: number }; complete?: Lsn };
  /** True if every segment from the ledger's end to `local` is there. */
  localReachesLedger?: boolean;
  /** `readable`: the server can tell of slots (15 and newer). */
  slot?: { name: string; readable: boolean; restartLsn?: Lsn; restartTimeline?: number };
  /** WAL from here on failed the check and is asked for again. */
  again?: { lsn: Lsn; timeline: number };
  /** The server said that it no longer has the WAL that follows what is stored. */
  walRemoved?: boolean;
  /** It said so of what follows the newest file. */
  behindNewestGone?: boolean;
  /** It has no file for the last segment of this timeline, and so of none before it. */
  lastSegmentGone?: number | undefined;
  acceptGap: boolean;
  /** False: a gap is warned of and gone over, as pg_receivewal does. */
  refuseGaps: boolean;
}

export type StartReason =
  | 'first start'
  | 'adopted'
  | 'local'
  | 'slot'
  | 'ledger'
  | 'fork'
  | 'accepted gap';

/** Where to start, and what has to be said and recorded about it. */
export interface StartPoint {
  /** First byte of a segment. */
  lsn: Lsn;
  timeline: number;
  reason: StartReason;
  /** WAL between these is in no archive from here on. */
  gap?: { from: Lsn; to: Lsn; why: string };
  warnings: string[];
}

/**
 * Chooses where streaming starts: newest local segment, the slot's restart_lsn, the ledger's end,
 * the server's flush position, in this order, rounded down to a segment (as pg_receivewal's
 * StreamLog, which has no ledger). Pure.
 *
 * @throws SystemIdentifierError another cluster
 * @throws TimelineConflictError what is stored is not on the server's history
 * @throws TimelineBehindError the server has not reached our timeline (yet)
 * @throws GapError going on would leave WAL missing and nobody accepted that
 */
export function chooseStart(i: StartInputs): StartPoint {
  checkCluster(i);
  const { server, segmentSize } = i;
  const warnings: string[] = [];
  const at = (lsn: bigint, timeline: number, reason: StartReason): StartPoint => ({
    lsn: floorToSegment(lsn, segmentSize),
    timeline,
    reason,
    warnings,
  });

  let start: StartPoint;
  const end = i.ledger?.end;
  const movedAway = i.behindNewestGone ? completeBeyond(i) : undefined;
  if (i.again) {
    start = at(i.again.lsn, i.again.timeline, 'local');
  } else if (movedAway !== undefined && end) {
    warnings.push(
      `WAL from ${formatLsn((i.local as LocalEnd).lsn)} to ${formatLsn(movedAway)} was archived and is not in the directory any more, nor on the server; going on behind it`,
    );
    start = at(movedAway, end.timeline, 'ledger');
  } else if (i.local && !isOutgrown(i.local, i)) {
    start = at(i.local.lsn, i.local.timeline, i.ledger ? 'local' : 'adopted');
  } else if (i.slot?.restartLsn !== undefined && !i.local) {
    start = at(i.slot.restartLsn, i.slot.restartTimeline ?? server.timeline, 'slot');
  } else if (end && (i.local || !i.slot?.readable)) {
    // Nothing is lost as long as the server still has what follows the ledger's end.
    start = at(end.lsn, end.timeline, 'ledger');
  } else {
    start = at(server.flushLsn, server.timeline, 'first start');
  }
  if (end) checkLineage(end.lsn, end.timeline, i);
  start = ontoServerHistory(start, i, warnings);
  warnOfOrphanedTail(start, i);
  start = ontoLaterFile(start, i);
  return i.walRemoved ? beyondRemoved(start, i) : checkGap(start, i);
}

type LocalEnd = NonNullable<StartInputs['local']>;

/**
 * Up to where the ledger has complete segments, if the newest file ends before: other tools moved
 * them away. Undefined if it does not, or is the wish to start there.
 */
export function completeBeyond({ ledger, local, segmentSize }: StartInputs): Lsn | undefined {
  if (!local || local.empty || ledger?.complete === undefined) return undefined;
  const complete = floorToSegment(ledger.complete, segmentSize);
  return local.lsn < complete ? complete : undefined;
}

/**
 * True if the newest file is an ancestor's, left at a failover, and the archive has gone on behind it
 * on a later timeline, from where other tools have moved the segments: the server may not have them.
 */
function isOutgrown(local: LocalEnd, { ledger, server, segmentSize }: StartInputs): boolean {
  const end = ledger?.end;
  if (!end || local.empty || local.timeline >= end.timeline) return false;
  if (!isInHistory(server.history, end.timeline)) return false;
  return local.lsn < floorToSegment(end.lsn, segmentSize);
}

/** Goes over WAL that is lost for good, which was accepted, to where the server has it again. */
function beyondRemoved(start: StartPoint, i: StartInputs): StartPoint {
  const { slot, server, segmentSize } = i;
  const held = slot?.restartLsn !== undefined && slot.restartLsn > start.lsn;
  const lsn = floorToSegment(held ? (slot.restartLsn as Lsn) : server.flushLsn, segmentSize);
  const timeline = held ? (slot.restartTimeline ?? server.timeline) : server.timeline;
  const from = endOnLineage(i) ?? start.lsn;
  if (lsn <= from) return start;
  const why = i.acceptGap ? 'accepted' : 'not refused';
  return {
    ...start,
    lsn,
    timeline,
    reason: 'accepted gap',
    gap: { from, to: lsn, why },
    warnings: [...start.warnings, `gap: ${gapText(from, lsn, timeline)}; going on`],
  };
}

function gapText(from: Lsn, to: Lsn, timeline: number): string {
  return `WAL from ${formatLsn(from)} to ${formatLsn(to)} (timeline ${timeline}) would be missing in the archive`;
}

/** @throws SystemIdentifierError if what is stored here is another cluster's */
export function checkCluster({
  server,
  ledger,
  localSystemId,
}: Pick<StartInputs, 'server' | 'ledger' | 'localSystemId'>): void {
  for (const [what, id] of [
    ['ledger', ledger?.systemId],
    ['newest segment', localSystemId],
  ] as const) {
    if (id === undefined || id === server.systemId) continue;
    throw new SystemIdentifierError(
      `the server is another cluster than the one stored here: system identifier ${server.systemId}, the ${what} of the directory says ${id}`,
      {
        expected: `${id}`,
        actual: `${server.systemId}`,
        hint: 'Use another directory for this server, or connect to the right one.',
      },
    );
  }
}

/** @throws TimelineConflictError, TimelineBehindError if the server's history lacks a timeline */
function checkLineage(lsn: Lsn, tli: number, { server }: StartInputs): void {
  const { history, timeline } = server;
  if (isInHistory(history, tli)) return;
  const what = `requested starting point ${formatLsn(lsn)} on timeline ${tli} is not in this server's history`;
  const details = { lsn, expected: `timeline ${tli}`, actual: `timeline ${timeline}` };
  if (tli > timeline) {
    throw new TimelineBehindError(`${what}: the server is on timeline ${timeline}`, {
      ...details,
      hint: `This may be the old primary, or a standby that has not followed the promotion yet. If that promotion is discarded, restart this server with a recovery.signal and recovery_target_timeline=${timeline}: it becomes a timeline of its own, which is followed. If a clone pushed that timeline here, move its files out of the directory.`,
    });
  }
  throw new TimelineConflictError(what, {
    ...details,
    hint: 'The server forked off before what is stored here; use a new directory for it.',
  });
}

/** Follows the server's history when the stored timeline ended before the wanted start. */
function ontoServerHistory(start: StartPoint, i: StartInputs, warnings: string[]): StartPoint {
  checkLineage(start.lsn, start.timeline, i);
  const { history } = i.server;
  const stored = i.ledger?.end;
  let { lsn, timeline: tli, reason } = start;
  for (let end = timelineEnd(history, tli); end !== undefined && lsn > end; ) {
    const child = childTimeline(history, tli) as number;
    const upTo = stored?.timeline === tli && stored.lsn > lsn ? stored.lsn : lsn;
    warnings.push(
      `timeline ${tli} is stored up to ${formatLsn(upTo)}, but the server left it at ${formatLsn(end)}: what lies between stays in its files; going on with timeline ${child}`,
    );
    lsn = floorToSegment(end, i.segmentSize);
    tli = child;
    reason = 'fork';
    end = timelineEnd(history, tli);
  }
  return { ...start, lsn, timeline: tli, reason };
}

/**
 * Asked for a timeline's last segment, the server looks for it under the next one's name (walsender.c,
 * WalSndSegmentOpen), which is not there if that one ended inside the segment too and WAL is archived:
 * then it is called .partial. A later timeline's file begins with the same WAL up to its fork.
 */
function ontoLaterFile(start: StartPoint, i: StartInputs): StartPoint {
  const { server, lastSegmentGone = 0, segmentSize } = i;
  let { timeline } = start;
  let fork: Lsn | undefined;
  while (timeline <= lastSegmentGone) {
    const end = timelineEnd(server.history, timeline);
    if (end === undefined || end <= start.lsn) break;
    if (floorToSegment(end, segmentSize) !== start.lsn) break;
    fork ??= end;
    timeline = childTimeline(server.history, timeline) as number;
  }
  if (fork === undefined) return start;
  const warning = `the server has no file for the end of timeline ${start.timeline}; its WAL from ${formatLsn(start.lsn)} to ${formatLsn(fork)} is received with timeline ${timeline}, which begins with the same`;
  return { ...start, timeline, reason: 'fork', warnings: [...start.warnings, warning] };
}

/** After a failover the old primary may have sent more than the new one took over. */
function warnOfOrphanedTail(start: StartPoint, i: StartInputs): void {
  const end = i.ledger?.end;
  if (!end || start.timeline !== end.timeline) return;
  const forked = timelineEnd(i.server.history, end.timeline);
  if (forked === undefined || forked >= end.lsn) return;
  start.warnings.push(
    `timeline ${end.timeline} was received up to ${formatLsn(end.lsn)}, but the server left it at ${formatLsn(forked)}: what lies between stays in its files, unused by the new timeline`,
  );
}

/** The ledger's end as a position on the server's own lineage. */
function endOnLineage(i: StartInputs): Lsn | undefined {
  const end = i.ledger?.end;
  if (!end) return undefined;
  const forked = timelineEnd(i.server.history, end.timeline);
  return forked !== undefined && forked < end.lsn ? forked : end.lsn;
}

/**
 * Up to where the archive is known to have no hole, floored to a segment: what follows is what another
 * archive has to have if the server lacks it. Undefined if nothing is known.
 */
export function continuousEnd(i: StartInputs): Lsn | undefined {
  const end = endOnLineage(i);
  const reached = i.local && (end === undefined || i.localReachesLedger) ? i.local.lsn : end;
  const lsn = end !== undefined && (reached ?? 0n) < end ? end : reached;
  return lsn === undefined ? undefined : floorToSegment(lsn, i.segmentSize);
}

/** True if WAL would be missing, whether that is accepted or not. What else is wrong is not asked. */
export function leavesGap(i: StartInputs): boolean {
  try {
    const { gap } = chooseStart(i);
    // One that begins at an empty partial is wished for.
    return gap !== undefined && i.local?.empty !== true;
  } catch (e) {
    return e instanceof GapError;
  }
}

function checkGap(start: StartPoint, i: StartInputs): StartPoint {
  const end = endOnLineage(i);
  if (end === undefined || start.lsn <= end) return start;
  if (i.local && i.localReachesLedger) return start;
  const explicit = i.local?.empty === true;
  const gap = {
    from: end,
    to: start.lsn,
    why: explicit ? 'restarted at an empty partial' : i.acceptGap ? 'accepted' : 'not refused',
  };
  const what = gapText(end, start.lsn, start.timeline);
  if (explicit || i.acceptGap || !i.refuseGaps) {
    return { ...start, gap, warnings: [...start.warnings, `gap: ${what}; going on`] };
  }
  const { slot } = i;
  throw new GapError(`gap: ${what}`, {
    lsn: end,
    expected: `a start at or before ${formatLsn(end)}`,
    actual: formatLsn(start.lsn),
    ...(slot?.readable && slot.restartLsn === undefined
      ? { detail: `Replication slot "${slot.name}" holds no WAL (restart_lsn is null).` }
      : {}),
    hint: 'Bring the missing segments back, or go on and have the gap recorded with --accept-gap.',
  });
}
