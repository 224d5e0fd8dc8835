import type { Archive } from '../archive/archive.js';
import { acceptExpiredGaps } from '../archive/backups/expired-gaps.js';
import type {
  Beside,
  Catalog,
  CatalogSegment,
  CatalogTimeline,
  SegmentGap,
  SegmentRange,
} from '../archive/catalog.js';
import type { GapEntry } from '../archive/ledger.js';
import { type ArchiveOptions, withArchives } from '../archive/places/open-archive.js';
import { readArchive } from '../archive/read-catalog.js';
import type { Lsn } from '../lsn.js';
import { majorOfMagic } from '../wal/page.js';
import type { TimestampTz } from '../wal/records/timestamp.js';
import { type CommitScan, readRangeEnds } from './commit-times.js';

/** Contiguous WAL of one timeline. */
export interface ListedRange {
  from: Lsn;
  /** Where its WAL ends: the valid end of a partial segment, otherwise the end of the last one. */
  to: Lsn;
  /** Segments, the partial included. */
  segments: number;
  /** Bytes on disk of all their files. */
  size: number;
  firstCommit?: TimestampTz;
  lastCommit?: TimestampTz;
  /** Name of the last segment's file if it is a partial one. */
  partial?: string;
}

/** A timeline in the tree of timelines. */
export interface ListedTimeline {
  timeline: number;
  /** What it branched off; undefined for a root, and where nothing tells. */
  parent?: number;
  /** Where it branched off. */
  branch?: Lsn;
  /** Why, in the words of its history file. */
  reason?: string;
  /** `abandoned`: receiving left it for another; `unfollowed`: later, and never received. */
  beside?: Beside;
  ranges: ListedRange[];
}

/** An archive at a glance. */
export interface ArchiveList {
  directory: string;
  systemId: bigint | undefined;
  /** Of the server that wrote the WAL; undefined if unknown. */
  serverMajor: number | undefined;
  /** Bytes. */
  segmentSize: number;
  segments: number;
  /** Bytes on disk. */
  size: number;
  /** Parents before their children. */
  timelines: ListedTimeline[];
  /** Missing and not accepted. */
  gaps: SegmentGap[];
  acceptedGaps: GapEntry[];
  /** Names of segments that are here only in forms that cannot be read. */
  unread: string[];
  /** The ledger's last acknowledged position. */
  flushed?: { lsn: Lsn; timeline: number };
}

/**
 * What WAL a directory holds: names and sizes of all files, content only of the first and last
 * segments of each range.
 * @throws StorageError if the directory cannot be read or is no WAL archive
 */
export async function listArchive(
  directory: string,
  signal?: AbortSignal,
  keys: ArchiveOptions = {},
): Promise<ArchiveList> {
  return withArchives(directory, keys, async (archive) => {
    const catalog = await readArchive(archive);
    await acceptExpiredGaps(catalog, directory, signal);
    return listCatalog(catalog, { signal });
  });
}

/** How what names do not tell is found out: by reading, unless somebody knows it. */
export interface ListOptions {
  scan?: CommitScan;
  /** Bytes on disk of segments, with all their files. */
  sizeOf?: (archive: Archive, segments: readonly CatalogSegment[]) => Promise<number>;
  signal?: AbortSignal | undefined;
}

/** The same of one that was looked over. */
export async function listCatalog(
  catalog: Catalog,
  options: ListOptions = {},
): Promise<ArchiveList> {
  const { systemId, segmentSize, ledger } = catalog;
  const timelines: ListedTimeline[] = [];
  for (const t of catalog.timelines) timelines.push(await listTimeline(catalog, t, options));
  const ranges = timelines.flatMap((t) => t.ranges);
  const { flushedLsn, timeline } = ledger ?? {};
  return {
    directory: catalog.archive.place,
    systemId,
    serverMajor: catalog.magic === undefined ? undefined : majorOfMagic(catalog.magic),
    segmentSize,
    segments: ranges.reduce((n, r) => n + r.segments, 0),
    size: ranges.reduce((n, r) => n + r.size, 0),
    timelines,
    gaps: catalog.gaps.filter((gap) => !gap.accepted),
    acceptedGaps: ledger?.gaps ?? [],
    unread: catalog.unread.map(({ name }) => name),
    ...(flushedLsn === undefined || timeline === undefined
      ? {}
      : { flushed: { lsn: flushedLsn, timeline } }),
  };
}

async function listTimeline(
  catalog: Catalog,
  t: CatalogTimeline,
  options: ListOptions,
): Promise<ListedTimeline> {
  const parent = t.history?.ancestors.at(-1);
  const ranges: ListedRange[] = [];
  for (const range of t.ranges) {
    options.signal?.throwIfAborted();
    ranges.push(await listRange(catalog, t, range, options));
  }
  return {
    timeline: t.timeline,
    ...(parent ? { parent: parent.timeline, branch: parent.end, reason: parent.reason } : {}),
    ...(t.beside ? { beside: t.beside } : {}),
    ranges,
  };
}

async function listRange(
  catalog: Catalog,
  t: CatalogTimeline,
  range: SegmentRange,
  { scan, sizeOf = sizeOnDisk }: ListOptions,
): Promise<ListedRange> {
  const { validEnd, ...ends } = await readRangeEnds(catalog, t, range, scan);
  return {
    from: range.from,
    to: validEnd,
    segments: range.segments.length,
    size: await sizeOf(catalog.archive, range.segments),
    ...ends,
  };
}

/** Files asked at a time. */
const BATCH = 64;

/** Bytes on disk; a file that is gone by now counts nothing. */
async function sizeOnDisk(archive: Archive, segments: readonly CatalogSegment[]): Promise<number> {
  const names = segments.flatMap((s) => s.files.map((f) => f.name));
  let total = 0;
  for (let i = 0; i < names.length; i += BATCH) {
    const sizes = await Promise.all(
      names
        .slice(i, i + BATCH)
        .map((name) => archive.segment(name, (file) => file.size()).catch(() => 0)),
    );
    total = sizes.reduce((sum, size) => sum + size, total);
  }
  return total;
}
