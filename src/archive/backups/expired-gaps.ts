import { WalkeepError } from '../../errors.js';
import { segmentOf } from '../../wal/file-name.js';
import type { Catalog, SegmentGap } from '../catalog.js';
import { openBackupArea } from './area.js';
import { readBackups, type StoredBackup } from './catalog.js';

/**
 * Accepts the gaps that an expire leaves: behind the WAL that a backup itself needs, where that stays
 * since it is pinned or another is based on it. It can be restored to its end, and is to be so only.
 * Where backups cannot be looked at, gaps go on being told.
 */
export async function acceptExpiredGaps(
  catalog: Catalog,
  place: string,
  signal?: AbortSignal,
): Promise<void> {
  const open = catalog.gaps.filter((gap) => !gap.accepted);
  if (open.length === 0 || catalog.systemId === undefined) return;
  const backups = await backupsOf(place, catalog.systemId, signal);
  for (const gap of open) {
    const id = leftBehind(gap, catalog, backups);
    if (id === undefined) continue;
    const { timeline, from, to } = gap;
    gap.accepted = { type: 'gap', timeline, from, to, why: `only backup ${id} itself was kept` };
  }
}

async function backupsOf(
  place: string,
  systemId: bigint,
  signal: AbortSignal | undefined,
): Promise<StoredBackup[]> {
  try {
    const area = await openBackupArea(place, { systemId, signal });
    try {
      return await readBackups(area, signal);
    } finally {
      await area.close();
    }
  } catch (e) {
    if (e instanceof WalkeepError) return [];
    throw e;
  }
}

/** The backup that all WAL of the timeline right before a gap belongs to. */
function leftBehind(
  { timeline, from }: SegmentGap,
  { timelines, segmentSize }: Catalog,
  backups: readonly StoredBackup[],
): string | undefined {
  const segments = timelines.find((t) => t.timeline === timeline)?.segments ?? [];
  const there = new Set(segments.map((one) => one.segment));
  const parents = new Set(backups.map((b) => b.record?.parent));
  const ranges = backups
    .filter((b) => b.kept || parents.has(b.id))
    .flatMap((b) =>
      (b.record?.walRanges ?? [])
        .filter((range) => range.timeline === timeline && range.end > range.start)
        .map(({ start, end }) => ({
          id: b.id,
          first: segmentOf(start, segmentSize),
          last: segmentOf(end - 1n, segmentSize),
        })),
    );
  let found: string | undefined;
  for (let n = segmentOf(from, segmentSize) - 1n; there.has(n); n--) {
    const range = ranges.find(({ first, last }) => n >= first && n <= last);
    if (!range) return undefined;
    found ??= range.id;
  }
  return found;
}
