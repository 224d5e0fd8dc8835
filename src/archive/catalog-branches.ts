import { isInHistory, type TimelineHistory, timelineEnd } from '../wal/timeline.js';
import type { Beside } from './catalog.js';
import { historyOf } from './catalog-lineage.js';
import type { LedgerState } from './ledger.js';
import { storedUpTo, wasFollowed } from './ledger-entry.js';

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
