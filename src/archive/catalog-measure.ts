import { join } from 'node:path';
import { segmentOf } from '../wal/file-name.js';
import type { Catalog, CatalogSegment, CatalogTimeline } from './catalog.js';
import { inspectWal, type StoredWal } from './push-compare.js';

type Archive = Pick<Catalog, 'directory' | 'timelines' | 'segmentSize' | 'systemId'>;

/**
 * Reads the partials of which names do not tell enough: those in which a timeline begins, since a
 * receiver creates them before there is WAL for them.
 */
export async function measurePartials(archive: Archive): Promise<void> {
  for (const t of archive.timelines) {
    const fork = t.history?.ancestors.at(-1)?.end;
    if (fork === undefined) continue;
    const first = segmentOf(fork, archive.segmentSize);
    const segment = t.segments.find((s) => s.segment === first);
    if (segment) await measure(archive, t, segment);
  }
}

async function measure(archive: Archive, t: CatalogTimeline, s: CatalogSegment): Promise<void> {
  if (!s.files[0]!.partial) return;
  const { directory, segmentSize, systemId } = archive;
  const known = systemId === undefined ? undefined : { systemId, history: t.history };
  for (const file of s.files) {
    const path = join(directory, file.name);
    // One that cannot be read, or was renamed meanwhile: whoever needs it will say so.
    const wal = await inspectWal(path, file.compression, file, segmentSize, known).catch(
      () => undefined,
    );
    if (wal && (!s.stored || isMore(wal, s.stored))) s.stored = wal;
  }
}

function isMore(a: StoredWal, b: StoredWal): boolean {
  if (a.validLength !== b.validLength) return a.validLength > b.validLength;
  return a.contentLength > b.contentLength;
}
