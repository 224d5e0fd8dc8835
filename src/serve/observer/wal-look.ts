import { statfs } from 'node:fs/promises';
import { acceptExpiredGaps } from '../../archive/backups/expired-gaps.js';
import type { Catalog } from '../../archive/catalog.js';
import { openDirectory } from '../../archive/places/directory-archive.js';
import { readCatalog, readCatalogOnce } from '../../archive/read-catalog.js';
import {
  type ArchiveList,
  type ListedRange,
  type ListedTimeline,
  listCatalog,
} from '../../list/list.js';
import { formatLsn, type Lsn } from '../../lsn.js';
import { formatIsoTimestamp, type TimestampTz } from '../../wal/records/timestamp.js';
import type { GapStatus, TimelineStatus } from '../status.js';
import type { WalLook } from './jobs.js';
import type { KnownFiles } from './known-files.js';
import { shapeOf, shapeOfCatalog } from './shape.js';

/** Ranges, and gaps, that are told. */
const MOST = 200;

/**
 * Looks at the WAL of a directory, as "walkeep list" does.
 * @param unless nothing is told of names that have the same shape as before
 * @throws what an archive throws
 */
export async function lookAtWal(
  directory: string,
  known: KnownFiles,
  unless?: 'same',
): Promise<WalLook | undefined> {
  const archive = openDirectory(directory);
  // Before all else: what changes meanwhile is another shape in the next look.
  const names = await archive.list();
  const { segmentSize: sizeBefore } = known;
  const asBefore = sizeBefore === undefined ? undefined : shapeOf(names, sizeBefore);
  if (unless === 'same' && asBefore !== undefined && asBefore === known.shape) return undefined;
  const readAt = new Date().toISOString();
  const once = await readCatalogOnce(archive);
  // Two listings lack the same: nothing was only being renamed.
  const isKnownSize = asBefore !== undefined && sizeBefore === once.segmentSize;
  const shape = isKnownSize ? asBefore : shapeOf(names, once.segmentSize);
  const catalog = shape === shapeOfCatalog(once) ? once : await readCatalog(archive);
  await acceptExpiredGaps(catalog, directory);
  known.begin();
  const { segmentSize } = catalog;
  const list = await listCatalog(catalog, {
    scan: known.scan,
    sizeOf: (_, segments) => known.sizeOf(archive, segments, segmentSize),
  });
  known.end();
  const { bavail, bsize } = await statfs(directory);
  const latest = latestOf(catalog);
  Object.assign(known, { segmentSize, shape });
  return {
    ...{ readAt, freeBytes: bavail * bsize, segments: list.segments, bytes: list.size },
    ...viewOf(list),
    ...(latest === undefined ? {} : { latest }),
    incomplete: known.incomplete,
  };
}

/** The timeline that recovery follows which is told none: of a receiver's archive the newest that it has followed. */
export function latestOf({ timelines }: Pick<Catalog, 'timelines'>): number | undefined {
  const withWal = timelines.filter((t) => t.segments.length > 0);
  return (withWal.findLast((t) => !t.beside) ?? withWal.at(-1))?.timeline;
}

/** What "walkeep list" lists, as texts and no longer than is good for a page. */
export function viewOf(list: ArchiveList): Pick<WalLook, 'timelines' | 'gaps' | 'more'> {
  const gaps = newestOf(list.gaps).map((gap) => ({ ...gap, isAccepted: false }));
  const accepted = newestOf(list.acceptedGaps).map((gap) => ({ ...gap, isAccepted: true }));
  const keptGaps = [...gaps, ...accepted].sort((a, b) =>
    a.from === b.from ? a.timeline - b.timeline : a.from < b.from ? -1 : 1,
  );
  const all = list.timelines.flatMap((t) => t.ranges);
  const kept = new Set(newestOf([...all].sort((a, b) => (a.from < b.from ? -1 : 1))));
  // A timeline without any range may be many, too.
  const timelines = list.timelines.slice(-MOST);
  const more = defined({
    ranges: all.length - kept.size,
    gaps: list.gaps.length - gaps.length,
    acceptedGaps: list.acceptedGaps.length - accepted.length,
  });
  return {
    timelines: timelines.map((t) => timelineOf(t, kept)),
    gaps: keptGaps.map((gap) => gapOf(gap, list)),
    ...(Object.keys(more).length > 0 ? { more } : {}),
  };
}

const defined = (counts: Record<string, number>): Record<string, number> =>
  Object.fromEntries(Object.entries(counts).filter(([, n]) => n > 0));

const newestOf = <T>(all: readonly T[]): readonly T[] => all.slice(-MOST);

function timelineOf(t: ListedTimeline, kept: ReadonlySet<ListedRange>): TimelineStatus {
  const { timeline, parent, branch, beside } = t;
  return {
    timeline,
    ...(parent === undefined ? {} : { parent }),
    ...(branch === undefined ? {} : { branch: formatLsn(branch) }),
    ...(beside === undefined ? {} : { beside }),
    ranges: t.ranges
      .filter((range) => kept.has(range))
      .map(({ from, to, segments, size, firstCommit, lastCommit }) => ({
        ...{ from: formatLsn(from), to: formatLsn(to), segments, bytes: size },
        ...timed({ firstCommit, lastCommit }),
      })),
  };
}

interface Gap {
  timeline: number;
  from: Lsn;
  to: Lsn;
  isAccepted: boolean;
}

function gapOf({ timeline, from, to, isAccepted }: Gap, list: ArchiveList): GapStatus {
  const size = BigInt(list.segmentSize);
  const segments = (to + size - 1n) / size - from / size;
  return {
    ...{ timeline, from: formatLsn(from), to: formatLsn(to), segments: Number(segments) },
    ...timed({
      after: commitBefore(list, timeline, from),
      before: commitBehind(list, timeline, to),
    }),
    accepted: isAccepted,
  };
}

/** The last commit before an LSN, on a timeline or what it came from. */
function commitBefore(list: ArchiveList, timeline: number, lsn: Lsn): TimestampTz | undefined {
  for (const t of ancestry(list, timeline)) {
    const range = t.ranges.findLast((r) => r.from < lsn && r.lastCommit !== undefined);
    if (range) return range.lastCommit;
  }
  return undefined;
}

/** The first one behind an LSN, on a timeline or what came from it. */
function commitBehind(list: ArchiveList, timeline: number, lsn: Lsn): TimestampTz | undefined {
  for (const t of list.timelines) {
    const isOurs = ancestry(list, t.timeline).some((one) => one.timeline === timeline);
    if (!isOurs) continue;
    const range = t.ranges.find((r) => r.from >= lsn && r.firstCommit !== undefined);
    if (range) return range.firstCommit;
  }
  return undefined;
}

/** A timeline and what it came from, the newest first. */
function ancestry({ timelines }: ArchiveList, timeline: number): ListedTimeline[] {
  const found: ListedTimeline[] = [];
  for (let wanted: number | undefined = timeline; wanted !== undefined; ) {
    const one: ListedTimeline | undefined = timelines.find((t) => t.timeline === wanted);
    if (!one || found.includes(one)) break;
    found.push(one);
    wanted = one.parent;
  }
  return found;
}

function timed<K extends string>(
  times: Record<K, TimestampTz | undefined>,
): Partial<Record<K, string>> {
  const known = Object.entries(times).filter(([, time]) => time !== undefined);
  return Object.fromEntries(
    known.map(([name, time]) => [name, formatIsoTimestamp(time as TimestampTz)]),
  ) as Partial<Record<K, string>>;
}
