import type { FetchName } from '../archive/stored-name.js';
import type { Lsn } from '../lsn.js';
import { segmentFileName, segmentOf, segmentStart } from '../wal/file-name.js';
import { timelineEnd } from '../wal/timeline.js';
import { findSources, type Source } from './stage.js';
import type { Stock } from './stock.js';

/** A later timeline's file that begins with the WAL of an ancestor's last segment. */
export interface ForkedSource {
  source: Source;
  /** Where the ancestor ends; what is behind is not its WAL. */
  fork: Lsn;
}

/**
 * The files of later timelines that repeat the segment in which a timeline ends, up to there. Some
 * servers keep no other file of it, so that a receiver can have the ancestor's end in these only.
 */
export function forkedSources(
  { histories, segmentSize }: Stock,
  directory: string,
  wanted: FetchName,
  segment: bigint,
): ForkedSource[] {
  const begin = segmentStart(segment, segmentSize);
  const found: ForkedSource[] = [];
  for (const history of histories) {
    const fork = timelineEnd(history, wanted.timeline);
    if (fork === undefined || fork <= begin || segmentOf(fork, segmentSize) !== segment) continue;
    const lineage = [...history.ancestors.map((a) => a.timeline), history.timeline];
    for (const timeline of lineage.filter((t) => t > wanted.timeline)) {
      const base = segmentFileName(timeline, segment, segmentSize);
      for (const partial of [false, true]) {
        found.push(...findSources(directory, base, partial).map((source) => ({ source, fork })));
      }
    }
  }
  // Of several branches the one that left last.
  return found.sort((a, b) => Number(b.fork - a.fork));
}
