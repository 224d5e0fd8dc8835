import type { Lsn } from '../../lsn.js';
import { segmentStart } from '../../wal/file-name.js';
import { isInHistory, type TimelineHistory, timelineEnd } from '../../wal/timeline.js';
import type { Catalog, CatalogTimeline } from '../catalog.js';
import { historyOf } from '../catalog-lineage.js';
import { inspectWal } from '../good-wal.js';

/**
 * WAL that was received of a timeline and that the one which is followed did not take over: an old
 * primary had confirmed it, the new one never got it.
 */
export interface DivergedWal {
  timeline: number;
  /** Where the way that is followed left the timeline, or where that began beside it. */
  from: Lsn;
  /** Behind the last record that is stored. */
  to: Lsn;
}

/**
 * All such WAL that is in an archive, by timelines. What holds less than a record beyond the fork has
 * nothing that could be missed.
 * @param way what is followed; absent: the timeline that the ledger, or else the newest WAL, is of
 */
export async function divergedWal(
  catalog: Catalog,
  way: TimelineHistory | undefined = followed(catalog),
): Promise<DivergedWal[]> {
  const found: DivergedWal[] = [];
  for (const entry of way ? catalog.timelines : []) {
    const from = leftAt(entry, way as TimelineHistory);
    const last = entry.segments.at(-1)?.segment;
    const there = last !== undefined && from !== undefined;
    // Received by nobody: it came from elsewhere, and was confirmed by another server.
    if (!there || entry.beside === 'unfollowed') continue;
    if (segmentStart(last + 1n, catalog.segmentSize) <= from) continue;
    const to = await endOfTimeline(catalog, entry);
    if (to !== undefined && to > from) found.push({ timeline: entry.timeline, from, to });
  }
  return found;
}

function followed({ ledger, timelines }: Catalog): TimelineHistory | undefined {
  const withWal = timelines.filter((t) => t.segments.length > 0);
  const current = ledger?.timeline;
  const newest = withWal.findLast((t) => !t.beside);
  if (current === undefined) return newest?.history;
  const histories = timelines.flatMap(({ history }) => (history ? [history] : []));
  return historyOf(current, histories, ledger);
}

/** Where a way left a timeline; undefined if it goes on with it, or nothing tells. */
function leftAt({ timeline, history }: CatalogTimeline, way: TimelineHistory): Lsn | undefined {
  if (isInHistory(way, timeline)) return timelineEnd(way, timeline);
  // Of a branch beside the way all that is its own.
  const parent = history?.ancestors.at(-1);
  return timeline < way.timeline ? parent?.end : undefined;
}

/** Behind the last good record of a timeline's newest segment; undefined if it has none. */
export async function endOfTimeline(
  { archive, segmentSize }: Pick<Catalog, 'archive' | 'segmentSize'>,
  { segments }: Pick<CatalogTimeline, 'segments'>,
): Promise<Lsn | undefined> {
  const last = segments.at(-1);
  const [file] = last?.files ?? [];
  if (!last || !file) return undefined;
  const begin = segmentStart(last.segment, segmentSize);
  if (!file.partial) return segmentStart(last.segment + 1n, segmentSize);
  let end = begin;
  for (const listed of last.files) {
    const wal = await archive
      .segment(listed.name, (stored) => inspectWal(stored, listed, segmentSize))
      .catch(() => undefined);
    const own = (begin + BigInt(wal?.validLength ?? 0)) as Lsn;
    if (own > end) end = own;
  }
  return end;
}
