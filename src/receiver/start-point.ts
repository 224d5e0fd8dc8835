import {
  GapError,
  SystemIdentifierError,
  TimelineBehindError,
  TimelineConflictError,
} from '../errors.js';
import { floorToSegment } from '../wal/file-name.js';
import { formatLsn, type Lsn } from '../wal/lsn.js';
import { childTimeline, isInHistory, type TimelineHistory, timelineEnd } from '../wal/timeline.js';

/** Everything that the choice of a start depends on; gathered elsewhere, decided here. */
export interface StartInputs {
  segmentSize: number;
  server: { systemId: bigint; timeline: number; flushLsn: Lsn; history: TimelineHistory };
  /** Newest segment file: `lsn` is its end if complete, its start if partial. */
  local?: { lsn: Lsn; timeline: number; empty: boolean; file: string };
  /** Identity read from a stored page header, if any file has one. */
  localSystemId?: bigint;
  ledger?: { systemId: bigint; end?: { lsn: Lsn; timeline: number } };
  /** True if every segment from the ledger's end to `local` is there. */
  localReachesLedger?: boolean;
  slot?: { name: string; restartLsn?: Lsn; restartTimeline?: number };
  acceptGap: boolean;
  /** False: a gap is warned of and gone over, as pg_receivewal does. */
  refuseGaps: boolean;
}

export type StartReason = 'first start' | 'adopted' | 'local' | 'slot' | 'ledger' | 'fork';

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
  if (i.local) {
    start = at(i.local.lsn, i.local.timeline, i.ledger ? 'local' : 'adopted');
  } else if (i.slot?.restartLsn !== undefined) {
    start = at(i.slot.restartLsn, i.slot.restartTimeline ?? server.timeline, 'slot');
  } else if (end && !i.slot) {
    // Nothing is lost as long as the server still has what follows the ledger's end.
    start = at(end.lsn, end.timeline, 'ledger');
  } else {
    start = at(server.flushLsn, server.timeline, 'first start');
  }
  start = ontoServerHistory(start, i, warnings);
  warnOfOrphanedTail(start, i);
  return checkGap(start, i);
}

function checkCluster({ server, ledger, localSystemId }: StartInputs): void {
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

/** Follows the server's history when the stored timeline ended before the wanted start. */
function ontoServerHistory(start: StartPoint, i: StartInputs, warnings: string[]): StartPoint {
  const { history, timeline } = i.server;
  if (!isInHistory(history, start.timeline)) {
    const what = `requested starting point ${formatLsn(start.lsn)} on timeline ${start.timeline} is not in this server's history`;
    if (start.timeline > timeline) {
      throw new TimelineBehindError(`${what}: the server is on timeline ${timeline}`, {
        lsn: start.lsn,
        expected: `timeline ${start.timeline}`,
        actual: `timeline ${timeline}`,
        hint: 'This may be the old primary, or a standby that has not followed the promotion yet.',
      });
    }
    throw new TimelineConflictError(what, {
      lsn: start.lsn,
      expected: `timeline ${start.timeline}`,
      actual: `timeline ${timeline}`,
      hint: 'The server forked off before what is stored here; use a new directory for it.',
    });
  }
  let { lsn, timeline: tli, reason } = start;
  for (let end = timelineEnd(history, tli); end !== undefined && lsn > end; ) {
    const child = childTimeline(history, tli) as number;
    warnings.push(
      `timeline ${tli} is stored up to ${formatLsn(lsn)}, but the server left it at ${formatLsn(end)}: what lies between stays in its files; going on with timeline ${child}`,
    );
    lsn = floorToSegment(end, i.segmentSize);
    tli = child;
    reason = 'fork';
    end = timelineEnd(history, tli);
  }
  return { ...start, lsn, timeline: tli, reason };
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
  const what = `WAL from ${formatLsn(end)} to ${formatLsn(start.lsn)} (timeline ${start.timeline}) would be missing in the archive`;
  if (explicit || i.acceptGap || !i.refuseGaps) {
    return { ...start, gap, warnings: [...start.warnings, `gap: ${what}; going on`] };
  }
  const { slot } = i;
  throw new GapError(`gap: ${what}`, {
    lsn: end,
    expected: `a start at or before ${formatLsn(end)}`,
    actual: formatLsn(start.lsn),
    ...(slot && slot.restartLsn === undefined
      ? { detail: `Replication slot "${slot.name}" holds no WAL (restart_lsn is null).` }
      : {}),
    hint: 'Bring the missing segments back, or go on and have the gap recorded with --accept-gap.',
  });
}
