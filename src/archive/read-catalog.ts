import type { Dirent } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { StorageError, type WalkeepError } from '../errors.js';
import { storageError } from '../files/durable.js';
import {
  type Compression,
  MIN_SEGMENT_SIZE,
  parseHistoryFileName,
  parseSegmentFileName,
  segmentStart,
} from '../wal/file-name.js';
import { DEFAULT_BLOCK_SIZE } from '../wal/page.js';
import type {
  Catalog,
  CatalogHistory,
  CatalogSegment,
  SegmentRange,
  StrayEntry,
} from './catalog.js';
import { standsBeside } from './catalog-branches.js';
import { historyOf, lineageGaps, missingEnd } from './catalog-lineage.js';
import { measurePartials } from './catalog-measure.js';
import { sampleIdentity } from './identity.js';
import { type LedgerState, readLedger } from './ledger.js';
import { readStoredHistory } from './stored-history.js';
import type { SegmentFile } from './wal-directory.js';

const COST: Record<Compression, number> = { none: 0, gzip: 1, zstd: 2, lz4: 3 };

/** `NAME.OFFSET.backup`: what PostgreSQL archives about a base backup (BackupHistoryFileName). */
const BACKUP_HISTORY = /^[0-9A-F]{24}\.[0-9A-F]{8}\.backup$/;
/** Directories that a server keeps in pg_wal. */
const SERVER_DIRECTORIES: readonly string[] = ['archive_status', 'summaries'];

/** How often a directory is listed that a receiver changes each time. */
const LISTINGS = 10;

/**
 * Takes stock of a directory: its ledger, one readdir, its history files, and the headers of some
 * segments. Nothing is changed.
 *
 * A file that gets its final name while it is listed can be seen under neither. So what a listing
 * lacks counts as missing only if the listing before lacked it too: nothing is renamed twice.
 * @throws StorageError if the directory or a history file cannot be read
 */
export async function readCatalog(directory: string): Promise<Catalog> {
  let before: readonly string[] = [];
  for (let n = 1; ; n++) {
    const catalog = await takeStock(directory);
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

async function takeStock(directory: string): Promise<Catalog> {
  let ledger: LedgerState | undefined;
  let ledgerProblem: WalkeepError | undefined;
  try {
    // Before the listing: what it has as stored must then be found.
    ledger = await readLedger(directory);
  } catch (e) {
    ledgerProblem = e as WalkeepError;
  }
  const entries = await readdir(directory, { withFileTypes: true }).catch((e) => {
    throw storageError('open directory', directory, e);
  });
  const sorted = sortOut(entries);
  const sample = await sampleIdentity(directory, sorted.names, ledger?.systemId);
  const segmentSize = ledger?.segmentSize ?? sample.segmentSize;
  const read = sorted.histories.map(({ name, timeline }) => readHistory(directory, name, timeline));
  const histories = (await Promise.all(read)).flat();
  const { segments, misfits } = segmentsOf(sorted.names, segmentSize);
  const strays = [...sorted.strays, ...misfits].sort((a, b) => (a.name < b.name ? -1 : 1));
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
  await measurePartials({ directory, timelines, segmentSize, systemId });
  return {
    directory,
    segmentSize,
    systemId,
    blockSize: sample.blockSize ?? DEFAULT_BLOCK_SIZE,
    magic: sample.magic,
    ledger,
    ledgerProblem,
    timelines,
    histories,
    gaps: lineageGaps(timelines, segmentSize, ledger),
    strays,
  };
}

function sortOut(entries: readonly Dirent[]) {
  const names: string[] = [];
  const histories: { name: string; timeline: number }[] = [];
  const strays: StrayEntry[] = [];
  for (const entry of entries) {
    const { name } = entry;
    if (name.startsWith('.') || BACKUP_HISTORY.test(name)) continue;
    // Whatever a name means with any segment size it means with the smallest.
    const isSegment = parseSegmentFileName(name, MIN_SEGMENT_SIZE) !== undefined;
    const timeline = parseHistoryFileName(name);
    if (!isSegment && timeline === undefined) {
      if (!entry.isDirectory()) {
        strays.push({ name, kind: name.endsWith('.tmp') ? 'temporary' : 'file' });
      } else if (!SERVER_DIRECTORIES.includes(name)) strays.push({ name, kind: 'directory' });
    } else if (!entry.isFile()) strays.push({ name, kind: 'irregular' });
    else if (timeline === undefined) names.push(name);
    else histories.push({ name, timeline });
  }
  histories.sort((a, b) => a.timeline - b.timeline);
  return { names: names.sort(), histories, strays };
}

/** None if it has gone since the directory was listed. */
async function readHistory(
  directory: string,
  name: string,
  timeline: number,
): Promise<CatalogHistory[]> {
  const stored = await readStoredHistory(directory, timeline);
  if (stored.state === 'absent') return [];
  if (stored.state === 'damaged') return [{ name, timeline, problem: stored.problem }];
  return [{ name, timeline, history: stored.history }];
}

/** Segments by timeline, ascending, from names in their order. */
function segmentsOf(names: readonly string[], segmentSize: number) {
  const segments = new Map<number, CatalogSegment[]>();
  const misfits: StrayEntry[] = [];
  for (const name of names) {
    const parsed = parseSegmentFileName(name, segmentSize);
    if (!parsed || parsed.timeline === 0) {
      misfits.push({ name, kind: 'file' });
      continue;
    }
    let list = segments.get(parsed.timeline);
    if (!list) {
      list = [];
      segments.set(parsed.timeline, list);
    }
    const last = list.at(-1);
    if (last?.segment === parsed.segment) last.files.push({ name, ...parsed });
    else list.push({ segment: parsed.segment, files: [{ name, ...parsed }] });
  }
  for (const list of segments.values()) {
    for (const { files } of list) if (files.length > 1) files.sort(bestFirst);
  }
  return { segments, misfits };
}

function bestFirst(a: SegmentFile, b: SegmentFile): number {
  if (a.partial !== b.partial) return a.partial ? 1 : -1;
  return COST[a.compression] - COST[b.compression];
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
export async function readArchive(directory: string): Promise<Catalog> {
  const catalog = await readCatalog(directory);
  const { timelines, ledger, ledgerProblem } = catalog;
  if (timelines.length === 0 && !ledger && !ledgerProblem) {
    throw new StorageError(`"${directory}" is not a WAL archive: it has no WAL and no ledger`, {
      path: directory,
    });
  }
  return catalog;
}
