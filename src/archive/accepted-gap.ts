import { segmentOf, segmentStart } from '../wal/file-name.js';
import { isInHistory } from '../wal/timeline.js';
import type { Catalog } from './catalog.js';
import type { GapEntry } from './ledger.js';

/**
 * What an accepted gap means for the WAL that is here now. `between`: a backup from before it cannot
 * be recovered beyond it. `before`: all that is kept lies behind it, nothing leads up to it.
 * `filled`: its segments were brought back.
 */
export type GapState = 'between' | 'before' | 'filled';

/** The ledger keeps every gap for ever; cleanup and `walkeep push` end what it means. */
export function acceptedGapState(gap: GapEntry, catalog: Catalog): GapState {
  const { timelines, segmentSize } = catalog;
  if (isFilled(gap, catalog)) return 'filled';
  return isBehind(gap.to, { timelines, segmentSize }) ? 'before' : 'between';
}

/** True if all WAL that is kept begins at or behind a position: no recovery comes by it any more. */
export function isBehind(
  lsn: bigint,
  { timelines, segmentSize }: Pick<Catalog, 'timelines' | 'segmentSize'>,
): boolean {
  const oldest = timelines.flatMap(({ segments }) => segments[0]?.segment ?? []);
  // Of files that were moved away nothing can be told: a recovery may bring them back.
  return oldest.length > 0 && oldest.every((n) => segmentStart(n, segmentSize) >= lsn);
}

function isFilled({ from, to, timeline }: GapEntry, { timelines, segmentSize }: Catalog): boolean {
  const first = segmentOf(from, segmentSize);
  const last = segmentOf(to - 1n, segmentSize);
  const history = timelines.find((t) => t.timeline === timeline)?.history;
  const found = new Set<bigint>();
  for (const { timeline: other, segments } of timelines) {
    if (other !== timeline && !(history && isInHistory(history, other))) continue;
    for (const { segment, files } of segments) {
      const complete = files[0]?.partial === false;
      if (complete && segment >= first && segment <= last) found.add(segment);
    }
  }
  return BigInt(found.size) === last - first + 1n;
}
