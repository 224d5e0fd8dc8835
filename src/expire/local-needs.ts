import type { Archive } from '../archive/archive.js';
import type { PlacedSegment, PlaceWal } from '../archive/backups/place-wal.js';
import { endsOf, type NamedSegment } from '../archive/places/ends.js';
import { readAllProgress } from '../archive/shipping/all-progress.js';
import { isShipped } from '../archive/shipping/local-segments.js';
import { segmentStart } from '../wal/file-name.js';

/** What of WAL that no backup needs a directory needs itself. */
export interface LocalNeeds {
  needed(segment: PlacedSegment): boolean;
  /** For people. */
  notes: string[];
}

/**
 * A receiver goes on at the ends of a directory, and what is to be shipped from there has to be there
 * still. In a store nothing is waited for.
 * @param state where it is kept what was shipped, if not in the directory
 * @throws StorageError
 */
export async function localNeeds(
  archive: Archive,
  wal: PlaceWal,
  removed: readonly PlacedSegment[],
  { state }: { state?: string | undefined },
): Promise<LocalNeeds> {
  if (!archive.isDirectory || removed.length === 0) return { needed: () => false, notes: [] };
  const isEnd = await endsOf(archive, wal.segments.map(named), removed.map(named));
  const places = await readAllProgress(state ?? archive.place);
  const waits = new Map<PlacedSegment, string>();
  for (const { place, timelines } of places) {
    for (const one of removed) {
      const start = segmentStart(one.segment, wal.segmentSize);
      const end = segmentStart(one.segment + 1n, wal.segmentSize);
      const whole = { ...one, start, end, names: [] };
      if (!one.open && !isShipped(timelines, whole)) waits.set(one, place);
    }
  }
  const notes = places.flatMap(({ place }) => {
    const count = [...waits.values()].filter((one) => one === place).length;
    return count === 0 ? [] : [`${count} segments stay that were not shipped to ${place}`];
  });
  return { needed: (one) => waits.has(one) || isEnd(named(one)), notes };
}

function named({ base, open }: PlacedSegment): NamedSegment {
  return { timeline: base.slice(0, 8), segment: base.slice(8), open };
}
