import { StorageError, type WalkeepError } from '../errors.js';
import { parseSegmentFileName, type SegmentName, segmentStart } from '../wal/file-name.js';
import { DEFAULT_BLOCK_SIZE } from '../wal/page.js';
import type { Archive } from './archive.js';
import type {
  Catalog,
  CatalogHistory,
  CatalogSegment,
  SegmentRange,
  UnreadSegment,
} from './catalog.js';
import { historyOf, lineageGaps, missingEnd, standsBeside } from './catalog-lineage.js';
import { measurePartials } from './catalog-measure.js';
import { sampleIdentity } from './identity.js';
import type { LedgerState } from './ledger.js';
import {
  type Listing,
  type SegmentFile,
  type StrayEntry,
  segmentFiles,
  sortOut,
} from './listing.js';

/** How often a directory is listed that a receiver changes each time. */
const LISTINGS = 10;

/**
 * Looks an archive over: its ledger, one readdir, its history files, and the headers of some
 * segments. Nothing is changed.
 *
 * A file that gets its final name while it is listed can be seen under neither. So what a listing
 * lacks counts as missing only if the listing before lacked it too: nothing is renamed twice.
 * @throws StorageError if the directory or a history file cannot be read
 */
export async function readCatalog(archive: Archive): Promise<Catalog> {
  let before: readonly string[] = [];
  for (let n = 1; ; n++) {
    const catalog = await readCatalogOnce(archive);
    const lacking = whatIsLacking(catalog);
    if (n === LISTINGS || lacking.every((what) => before.includes(what))) return catalog;
    before = lacking;
  }
}

function whatIsLacking({ gaps, timelines, histories, segmentSize, ledger }: Catalog): string[] {
  const end = missingEnd(timelines, segmentSize, ledger);
  const told = new Set(histories.map((h) => h.timeline));
  const untold = timelines.filter((t) => t.timeline > 1 && !told.has(t.timeline));
  return [
    ...gaps.filter((gap) => !gap.accepted && !gap.beside),
    ...(end ? [{ timeline: end.timeline, from: end.from, to: 'end' }] : []),
    ...untold.map(({ timeline }) => ({ timeline, from: 'history', to: '' })),
  ].map(({ timeline, from, to }) => `${timeline} ${from} ${to}`);
}

/**
 * The same by one listing: for who has another one, and sees that it lacks nothing else.
 * @throws StorageError if the directory or a history file cannot be read
 */
export async function readCatalogOnce(archive: Archive): Promise<Catalog> {
  let ledger: LedgerState | undefined;
  let ledgerProblem: WalkeepError | undefined;
  try {
    // Before the listing: what it has as stored must then be found.
    ledger = await archive.ledger();
  } catch (e) {
    ledgerProblem = e as WalkeepError;
  }
  const listing = sortOut(await archive.list());
  const cluster = ledgerProblem ? undefined : (ledger ?? (await archive.cluster()));
  const sample = await sampleIdentity(archive, listing.segments, cluster?.systemId);
  const segmentSize = cluster?.segmentSize ?? sample.segmentSize;
  const read = listing.histories.map(({ name, timeline }) => readHistory(archive, name, timeline));
  const histories = (await Promise.all(read)).flat();
  const files = segmentFiles(listing.segments, segmentSize);
  const segments = byTimeline(files);
  const known = histories.flatMap((h) => (h.history ? [h.history] : []));
  const numbers = new Set([...segments.keys(), ...histories.map((h) => h.timeline)]);
  const timelines = [...numbers]
    .sort((a, b) => a - b)
    .map((timeline) => {
      const own = segments.get(timeline) ?? [];
      const history = historyOf(timeline, known, ledger);
      const beside = standsBeside(timeline, history, known, ledger);
      const ranges = rangesOf(own, segmentSize);
      return { timeline, history, segments: own, ranges, ...(beside ? { beside } : {}) };
    });
  const { systemId } = sample;
  await measurePartials({ archive, timelines, segmentSize, systemId });
  return {
    archive,
    segmentSize,
    systemId,
    blockSize: sample.blockSize ?? DEFAULT_BLOCK_SIZE,
    magic: sample.magic,
    ledger,
    ledgerProblem,
    timelines,
    histories,
    gaps: lineageGaps(timelines, segmentSize, ledger),
    strays: withMisfits(listing, files),
    unread: unreadSegments(listing, files, segmentSize),
  };
}

/** None if it has gone since the directory was listed. */
async function readHistory(
  archive: Archive,
  name: string,
  timeline: number,
): Promise<CatalogHistory[]> {
  const stored = await archive.history(timeline);
  if (stored.state === 'absent') return [];
  if (stored.state === 'damaged') return [{ name, timeline, problem: stored.problem }];
  return [{ name, timeline, history: stored.history }];
}

/** Segments by timeline, ascending, from files that are in order. */
function byTimeline(files: readonly SegmentFile[]): Map<number, CatalogSegment[]> {
  const segments = new Map<number, CatalogSegment[]>();
  for (const file of files) {
    const list = segments.get(file.timeline);
    const last = list?.at(-1);
    if (last?.segment === file.segment) last.files.push(file);
    else if (list) list.push({ segment: file.segment, files: [file] });
    else segments.set(file.timeline, [{ segment: file.segment, files: [file] }]);
  }
  for (const list of segments.values()) list.reverse();
  return segments;
}

/** What is no part of the archive, with the names that no segment of its size can have. */
function withMisfits(listing: Listing, files: readonly SegmentFile[]): StrayEntry[] {
  if (files.length === listing.segments.length) return listing.strays;
  const names = new Set(files.map((file) => file.name));
  const misfits = listing.segments.filter((name) => !names.has(name));
  const strays = misfits.map((name): StrayEntry => ({ name, kind: 'file' }));
  return [...listing.strays, ...strays].sort((a, b) => (a.name < b.name ? -1 : 1));
}

function unreadSegments(
  { unreadable }: Listing,
  files: readonly SegmentFile[],
  segmentSize: number,
): UnreadSegment[] {
  const key = ({ timeline, segment }: SegmentName) => `${timeline} ${segment}`;
  const complete = new Set(files.filter((file) => !file.partial).map(key));
  return unreadable
    .flatMap(({ name, base }) => {
      const parsed = parseSegmentFileName(base, segmentSize);
      if (!parsed || complete.has(key(parsed))) return [];
      const { timeline, segment } = parsed;
      return [{ name, timeline, segment }];
    })
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

function rangesOf(segments: readonly CatalogSegment[], segmentSize: number): SegmentRange[] {
  const ranges: SegmentRange[] = [];
  for (const segment of segments) {
    const from = segmentStart(segment.segment, segmentSize);
    const to = segmentStart(segment.segment + 1n, segmentSize);
    const last = ranges.at(-1);
    if (last?.to === from) {
      last.segments.push(segment);
      last.to = to;
    } else ranges.push({ from, to, segments: [segment] });
  }
  return ranges;
}

/** The catalog of a directory that holds WAL, or did. @throws StorageError */
export async function readArchive(archive: Archive): Promise<Catalog> {
  const catalog = await readCatalog(archive);
  requireWal(catalog);
  return catalog;
}

/** @throws StorageError for a directory that holds no WAL, and never did */
export function requireWal({ archive, timelines, ledger, ledgerProblem }: Catalog): void {
  if (timelines.length > 0 || ledger || ledgerProblem) return;
  throw new StorageError(`"${archive.place}" is not a WAL archive: it has no WAL and no ledger`, {
    path: archive.place,
  });
}
