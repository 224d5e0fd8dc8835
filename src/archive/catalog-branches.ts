import type { LedgerState } from '../storage/ledger.js';
import { storedUpTo, wasFollowed } from '../storage/ledger-entry.js';
import { isInHistory, type TimelineHistory, timelineEnd } from '../wal/timeline.js';
import { historyOf } from './catalog-lineage.js';

/**
 * How a timeline stands beside the way of the one that is received. `abandoned`: receiving left it
 * for another, or passed it by. `unfollowed`: it is later than that one, was never received, and
 * left the way before what was received: a clone pushed it, or a server that the receiver has not
 * found yet. Recovery to the latest timeline follows it all the same.
 */
export type Beside = 'abandoned' | 'unfollowed';

/**
 * How a timeline stands to what the ledger has followed; undefined on its way, for one that goes on
 * where it ends, and where nothing tells.
 */
export function standsBeside(
  timeline: number,
  history: TimelineHistory | undefined,
  histories: readonly TimelineHistory[],
  ledger: LedgerState | undefined,
): Beside | undefined {
  const current = ledger?.timeline;
  if (!ledger || current === undefined || timeline === current) return undefined;
  const way = historyOf(current, histories, ledger);
  if (way && isInHistory(way, timeline)) return undefined;
  if (wasFollowed(ledger, timeline)) return way ? 'abandoned' : undefined;
  if (!history) return undefined;
  if (timeline < current) return way ? 'abandoned' : undefined;
  const left = timelineEnd(history, current);
  return left !== undefined && left >= (storedUpTo(ledger) ?? 0n) ? undefined : 'unfollowed';
}
