import { join } from 'node:path';
import { ArchiveAccessError, listArchive, onArchive } from '../archive/access.js';
import { historyAt } from '../archive/history.js';
import { sampleIdentity } from '../archive/identity.js';
import type { LedgerState } from '../archive/ledger.js';
import { ledgerOf } from '../archive/ledger-of.js';
import { formatLsn } from '../lsn.js';
import {
  MIN_SEGMENT_SIZE,
  parseHistoryFileName,
  parseSegmentFileName,
  segmentFileName,
  segmentOf,
  unreadableFormOf,
} from '../wal/file-name.js';
import type { TimelineHistory } from '../wal/timeline.js';
import { requireSameCluster } from './cluster.js';

/** What an archive holds, as its names, ledger and history files tell. */
export interface Stock {
  /** All that is in the directory. */
  names: readonly string[];
  ledger: LedgerState | undefined;
  /** Segment numbers by timeline, complete and partial, also in forms that cannot be read. */
  segments: Map<number, Set<bigint>>;
  histories: TimelineHistory[];
  segmentSize: number;
}

/**
 * Takes stock of an archive: one listing, its ledger and history files, and some page headers.
 * @param systemId the cluster that it must be of, where that is known
 * @throws ArchiveAccessError if the directory is no archive: an unmounted path is an empty directory
 * @throws SystemIdentifierError if it is the archive of another cluster
 * @throws CorruptWalError, StorageError for a history file or ledger that is damaged
 */
export async function takeStock(directory: string, systemId: bigint | undefined): Promise<Stock> {
  // Before the listing: what the ledger knows of must then be found.
  const ledger = await ledgerOf(directory);
  const names = listArchive(directory);
  const wal = names.filter((name) => parseSegmentFileName(name, MIN_SEGMENT_SIZE)).sort();
  const histories = names.filter((name) => parseHistoryFileName(name) !== undefined);
  const unreadable = names.flatMap((name) => unreadableFormOf(name) ?? []);
  if (!ledger && wal.length === 0 && histories.length === 0) {
    throw new ArchiveAccessError(`"${directory}" holds no WAL and no ledger`, {
      path: directory,
      hint: 'Is it mounted, and the right directory?',
    });
  }
  const sample = await sampleIdentity(directory, wal, ledger?.systemId);
  requireSameCluster(directory, systemId, sample.systemId);
  const segmentSize = ledger?.segmentSize ?? sample.segmentSize;
  return {
    names,
    ledger,
    segmentSize,
    segments: segmentsByTimeline([...wal, ...unreadable], segmentSize),
    histories: histories.flatMap((name) => readHistory(directory, name)),
  };
}

function segmentsByTimeline(names: readonly string[], segmentSize: number) {
  const segments = new Map<number, Set<bigint>>();
  for (const name of names) {
    const parsed = parseSegmentFileName(name, segmentSize);
    if (!parsed) continue;
    const known = segments.get(parsed.timeline);
    if (known) known.add(parsed.segment);
    else segments.set(parsed.timeline, new Set([parsed.segment]));
  }
  return segments;
}

function readHistory(directory: string, name: string): TimelineHistory[] {
  const timeline = parseHistoryFileName(name)!;
  const history = onArchive('read file', join(directory, name), () =>
    historyAt(directory, timeline),
  );
  return history ? [history] : [];
}

/**
 * What shows that the WAL of a timeline goes on behind a segment: a later segment, or a child that
 * branched off later. Undefined if nothing does.
 */
export function goesOnBehind(stock: Stock, timeline: number, segment: bigint): string | undefined {
  const { histories, segments, segmentSize } = stock;
  const after = [...(segments.get(timeline) ?? [])].filter((s) => s > segment);
  const later = after.sort((a, b) => (a < b ? -1 : 1))[0];
  if (later !== undefined)
    return `the archive has ${segmentFileName(timeline, later, segmentSize)}`;
  for (const child of histories) {
    const end = child.ancestors.find((a) => a.timeline === timeline)?.end;
    if (end === undefined || segment >= segmentOf(end, segmentSize)) continue;
    return `timeline ${child.timeline} needs timeline ${timeline} up to ${formatLsn(end)}`;
  }
  return undefined;
}
