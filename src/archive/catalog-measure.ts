import { segmentOf, segmentStart } from '../wal/file-name.js';
import type { Catalog, CatalogSegment, CatalogTimeline } from './catalog.js';
import { inspectWal, type StoredWal } from './good-wal.js';
import type { SegmentFile } from './listing.js';

type Measured = Pick<Catalog, 'archive' | 'timelines' | 'segmentSize' | 'systemId'>;

/**
 * Reads the partials of which names do not tell enough: several of one segment, and those in which
 * a timeline begins, since a receiver creates them before there is WAL for them.
 */
export async function measurePartials(catalog: Measured): Promise<void> {
  for (const t of catalog.timelines) {
    for (const s of t.segments) if (s.files.length > 1) await measure(catalog, t, s);
  }
  for (const t of catalog.timelines) await measureBegin(catalog, t);
}

async function measureBegin(catalog: Measured, t: CatalogTimeline): Promise<void> {
  const { timelines, segmentSize } = catalog;
  const fork = t.history?.ancestors.at(-1)?.end;
  if (fork === undefined) return;
  const number = segmentOf(fork, segmentSize);
  const first = t.segments.find((s) => s.segment === number);
  if (!first) return;
  await measure(catalog, t, first);
  const toFork = Number(fork - segmentStart(number, segmentSize));
  if (!first.stored || first.stored.validLength >= toFork) return;
  // An ancestor may have more of it.
  for (const { timeline, end } of t.history!.ancestors) {
    if (segmentOf(end, segmentSize) !== number) continue;
    const parent = timelines.find((p) => p.timeline === timeline);
    const segment = parent?.segments.find((s) => s.segment === number);
    if (segment) await measure(catalog, parent!, segment);
  }
}

/** Measures a segment of which only partials are here, and puts the one that holds most first. */
async function measure(catalog: Measured, t: CatalogTimeline, s: CatalogSegment): Promise<void> {
  if (!s.files[0]!.partial || s.stored) return;
  const { archive, segmentSize, systemId } = catalog;
  const known = systemId === undefined ? undefined : { systemId, history: t.history };
  const found: [SegmentFile, StoredWal | undefined][] = [];
  for (const file of s.files) {
    const wal = await archive
      .segment(file.name, (stored) => inspectWal(stored, file, segmentSize, known))
      .catch(
        // It cannot be read: whoever needs it will say so.
        () => undefined,
      );
    found.push([file, wal]);
  }
  found.sort(([, a], [, b]) => mostFirst(a, b));
  s.files = found.map(([file]) => file);
  const best = found[0]![1];
  if (best) s.stored = best;
}

function mostFirst(a: StoredWal | undefined, b: StoredWal | undefined): number {
  if (!a || !b) return a ? -1 : b ? 1 : 0;
  return b.validLength - a.validLength || b.contentLength - a.contentLength;
}
