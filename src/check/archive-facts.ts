import { access, constants, stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import type { Archive, StoreFacts } from '../archive/archive.js';
import { acceptExpiredGaps } from '../archive/backups/expired-gaps.js';
import type { Catalog, CatalogTimeline } from '../archive/catalog.js';
import { readCatalog } from '../archive/read-catalog.js';
import { type DivergedWal, divergedWal, endOfTimeline } from '../archive/way/diverged.js';
import { storageError } from '../files/durable.js';
import type { Lsn } from '../lsn.js';
import { segmentOf } from '../wal/file-name.js';
import { isInHistory, type TimelineHistory, timelineEnd } from '../wal/timeline.js';

/** Up to where an archive reaches. */
export interface ArchiveEnd {
  timeline: number;
  lsn: Lsn;
}

/** What the directory tells. */
export interface ArchiveFacts {
  catalog: Catalog;
  /** On the way of the server's timeline; undefined if nothing of it is here. */
  end: ArchiveEnd | undefined;
  /** What was received beyond where the timeline that is followed, or the server, left it. */
  diverged: readonly DivergedWal[];
  /** Number of the last segment of which there is a file on that way. */
  lastSegment: bigint | undefined;
  /** Milliseconds since the newest file was written to. */
  lastWriteAge: number | undefined;
  /** Milliseconds since the newest complete segment was full. */
  lastSegmentAge: number | undefined;
  /** Bytes a second over the newest segments; undefined where they tell nothing. */
  rate: number | undefined;
  receiver: Awaited<ReturnType<Archive['receiver']>>;
  /** Of a store. */
  store: StoreFacts | undefined;
  /** Of a directory. */
  local: { disk: DiskSpace; permissions: Permissions } | undefined;
}

/** Bytes on the file system: free for us, and in all. */
export interface DiskSpace {
  free: number;
  total: number;
}

/** Who may do what; bare names, `.` for the directory. */
export interface Permissions {
  /** We cannot list, write or pass through the directory. */
  unusable: boolean;
  unreadable: string[];
  /** Files of another user, while we are not root. */
  foreign: string[];
  /** Readable for everybody. */
  open: string[];
  directoryMode: number;
}

/** Newest segments whose times and permissions are looked at. */
const SAMPLE = 500;
/** Milliseconds that a rate must be of. */
const RATE_SPAN = 3_600_000;

/** Takes stock of a directory. @throws StorageError if it cannot be read at all */
export async function readArchiveFacts(
  archive: Archive,
  history: TimelineHistory | undefined,
): Promise<ArchiveFacts> {
  const receiver = await archive.receiver();
  const catalog = await readCatalog(archive);
  await acceptExpiredGaps(catalog, archive.place);
  const files = await endOfFiles(catalog, history);
  const sample = archive.isDirectory ? await newestFiles(catalog) : [];
  return {
    catalog,
    lastSegment: files?.segment,
    end: withLedger(files, catalog, history),
    diverged: await divergedWal(catalog),
    lastWriteAge: age(sample),
    lastSegmentAge: age(sample.filter((file) => !file.partial)),
    rate: rateOf(sample, catalog.segmentSize),
    receiver,
    store: await archive.storeFacts?.(),
    local: archive.isDirectory ? await readLocal(archive.place, sample) : undefined,
  };
}

async function readLocal(directory: string, sample: readonly Sampled[]) {
  const { bavail, bsize, blocks } = await statfs(directory).catch((e) => {
    throw storageError('look at file system of', directory, e);
  });
  const disk: DiskSpace = { free: bavail * bsize, total: blocks * bsize };
  return { disk, permissions: await readPermissions(directory, sample) };
}

/** True if WAL was archived in segments behind the last one that is here. */
export function isAhead(
  end: ArchiveEnd | undefined,
  lastSegment: bigint | undefined,
  { segmentSize }: Pick<Catalog, 'segmentSize'>,
): boolean {
  return end !== undefined && segmentOf(end.lsn - 1n, segmentSize) > (lastSegment ?? -1n);
}

async function endOfFiles(
  catalog: Catalog,
  history: TimelineHistory | undefined,
): Promise<(ArchiveEnd & { segment: bigint }) | undefined> {
  for (const { timeline, segments } of [...catalog.timelines].reverse()) {
    const last = segments.at(-1);
    if (!last || (history && !isInHistory(history, timeline))) continue;
    let lsn = (await endOfTimeline(catalog, { segments })) as Lsn;
    const fork = history && timelineEnd(history, timeline);
    if (fork !== undefined && fork < lsn) lsn = fork;
    return { timeline, lsn, segment: last.segment };
  }
  return undefined;
}

/** The ledger remembers what was archived even when other tools have moved it away. */
function withLedger(
  files: ArchiveEnd | undefined,
  { ledger }: Catalog,
  history: TimelineHistory | undefined,
): ArchiveEnd | undefined {
  const { timeline, end: lsn } = ledger ?? {};
  if (timeline === undefined || lsn === undefined) return files;
  if (history && !isInHistory(history, timeline)) return files;
  const ahead =
    !files || timeline > files.timeline || (timeline === files.timeline && lsn > files.lsn);
  return ahead ? { timeline, lsn } : files;
}

interface Sampled {
  name: string;
  partial: boolean;
  mtimeMs: number;
  mode: number;
  uid: number;
}

async function newestFiles(catalog: Catalog): Promise<Sampled[]> {
  const segments = catalog.timelines.flatMap((t: CatalogTimeline) => t.segments).slice(-SAMPLE);
  const files = segments.flatMap((segment) => segment.files);
  const found = await Promise.all(
    files.map(async ({ name, partial }) => {
      const s = await stat(join(catalog.archive.place, name)).catch(() => undefined);
      return s && { name, partial, mtimeMs: s.mtimeMs, mode: s.mode, uid: s.uid };
    }),
  );
  return found.filter((file) => file !== undefined);
}

/** Of the newest one. */
function age(files: readonly Sampled[]): number | undefined {
  if (files.length === 0) return undefined;
  return Math.max(0, Date.now() - Math.max(...files.map((f) => f.mtimeMs)));
}

/** Until now, and over a while: the rate of a burst says nothing about days. */
function rateOf(files: readonly Sampled[], segmentSize: number): number | undefined {
  const times = files.filter((f) => !f.partial).map((f) => f.mtimeMs);
  const span = Date.now() - Math.min(...times);
  return times.length > 0 && span >= RATE_SPAN
    ? (times.length * segmentSize) / (span / 1000)
    : undefined;
}

async function readPermissions(directory: string, files: readonly Sampled[]): Promise<Permissions> {
  const uid = process.getuid?.();
  const readable = async (name: string): Promise<boolean> =>
    access(join(directory, name), constants.R_OK).then(
      () => true,
      (e) => e.code === 'ENOENT',
    );
  const checked = await Promise.all(files.map(({ name }) => readable(name)));
  const usable = await access(directory, constants.R_OK | constants.W_OK | constants.X_OK).then(
    () => true,
    () => false,
  );
  return {
    unusable: !usable,
    unreadable: files.filter((_, i) => !checked[i]).map((f) => f.name),
    foreign: files.filter((f) => uid && f.uid !== uid).map((f) => f.name),
    open: files.filter((f) => (f.mode & 0o004) !== 0).map((f) => f.name),
    directoryMode: (await stat(directory)).mode & 0o7777,
  };
}
