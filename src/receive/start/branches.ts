import type { LedgerState } from '../../archive/ledger.js';
import { wasFollowed } from '../../archive/ledger-entry.js';
import { formatLsn, type Lsn } from '../../lsn.js';
import { historyFileName } from '../../wal/file-name.js';
import {
  commonTimeline,
  isInHistory,
  type TimelineHistory,
  timelineEnd,
} from '../../wal/timeline.js';

type Server = { timeline: number; history: TimelineHistory };

/** Up to where an archive is continuous, and what has to be said of it. */
export interface KnownEnd {
  lsn: Lsn;
  timeline: number;
  warning?: string;
}

/**
 * The ledger's end, as a place that the server can go on from. The timeline followed so far may be a
 * branch beside the server's: after a second recovery from one backup, or when a promoted standby is
 * lost and the old primary becomes another timeline. What they have in common is here up to where
 * that branch left it, or further if it was received further. Where the server is the one that is
 * behind, or nothing is common, the end stays as it is, for `chooseStart` to refuse.
 * @param stored the history of the ledger's timeline, as far as anything tells it
 */
export function knownEnd(
  ledger: LedgerState,
  server: Server,
  stored: TimelineHistory | undefined,
): KnownEnd | undefined {
  const { end: lsn, timeline } = ledger;
  if (lsn === undefined || timeline === undefined) return undefined;
  const { history } = server;
  const common =
    stored && timeline < server.timeline && !isInHistory(history, timeline)
      ? commonTimeline(stored, history)
      : undefined;
  const left = common === undefined ? undefined : timelineEnd(stored!, common);
  if (common === undefined || left === undefined) return { lsn, timeline };
  const reached = ledger.left.get(common) ?? left;
  const fork = timelineEnd(history, common);
  const warning = `the server's timeline ${server.timeline} left timeline ${common} at ${fork === undefined ? '?' : formatLsn(fork)} and does not go on with timeline ${timeline}, which was received up to ${formatLsn(lsn)}: what is stored of that stays, as a branch that was abandoned`;
  return { lsn: reached > left ? reached : left, timeline: common, warning };
}

/**
 * True for a timeline of which files are here and from which the server does not go on, though it is
 * the right server: a branch that was left, or WAL that another server pushed here.
 *
 * A later timeline that was received here says that the server is an old primary. One that never was,
 * while the server goes on with the one that was, comes from a clone or a standby that was promoted
 * by mistake: to wait for it would be to wait for ever.
 */
export function isBeside(timeline: number, server: Server, ledger: LedgerState): boolean {
  if (isInHistory(server.history, timeline)) return false;
  if (timeline < server.timeline) return true;
  const known = ledger.timeline;
  return (
    known !== undefined && isInHistory(server.history, known) && !wasFollowed(ledger, timeline)
  );
}

/** What to say of timelines beside the server's that are later than its own. */
export function strangerWarning(timelines: readonly number[], server: Server): string {
  const files = timelines.map((t) => `${historyFileName(t).slice(0, 8)}*`).join(', ');
  const which =
    timelines.length === 1
      ? `timeline ${timelines[0]}, which was`
      : `timelines ${timelines.join(', ')}, which were`;
  return `the directory has files of ${which} never received here, and the server is on timeline ${server.timeline}: going on with that. A recovery to the latest timeline would follow the other. If a clone or a standby that was promoted by mistake pushed them, take walkeep out of its archive_command and move the files ${files} out of the directory; if the server is an old primary, connect to the new one`;
}
