import fs from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { requireSameCluster } from '../archive/access.js';
import type { Archive } from '../archive/archive.js';
import { requireHistory } from '../archive/history.js';
import { sampleIdentity } from '../archive/identity.js';
import type { LedgerState } from '../archive/ledger-entry.js';
import { identifySegment } from '../archive/segment-identity.js';
import type { StoredSegment } from '../archive/segment-source.js';
import { ArchiveAccessError } from '../errors.js';
import { formatLsn, type Lsn } from '../lsn.js';
import {
  MIN_SEGMENT_SIZE,
  parseHistoryFileName,
  parseSegmentFileName,
  segmentFileName,
  segmentOf,
  segmentStart,
  unreadableFormOf,
} from '../wal/file-name.js';
import { type TimelineHistory, timelineEnd } from '../wal/timeline.js';
import type { FetchName, SegmentIdentity } from './complete.js';
import { AT_ONCE } from './target.js';

/** What an archive holds, as its names, ledger and history files tell. */
export interface Holdings {
  /** All that is in the directory. */
  names: readonly string[];
  ledger: LedgerState | undefined;
  /** Segment numbers by timeline, complete and partial, also in forms that cannot be read. */
  segments: Map<number, Set<bigint>>;
  histories: TimelineHistory[];
  segmentSize: number;
}

/**
 * What an archive holds, as far as that tells of one file: names, its ledger and history files, and
 * some page headers.
 * @param systemId the cluster that it must be of, where that is known
 * @throws ArchiveAccessError if the directory is no archive: an unmounted path is an empty directory
 * @throws SystemIdentifierError if it is the archive of another cluster
 * @throws CorruptWalError, StorageError for a history file or ledger that is damaged
 */
export async function readHoldings(
  archive: Archive,
  { base }: FetchName,
  systemId: bigint | undefined,
): Promise<Holdings> {
  const { place } = archive;
  // Before the listing: what the ledger knows of must then be found.
  const ledger = await archive.ledger();
  const cluster = ledger ? undefined : await archive.cluster();
  const names = (await archive.listAround(base)).map(({ name }) => name);
  const wal = names.filter((name) => parseSegmentFileName(name, MIN_SEGMENT_SIZE)).sort();
  const told = names.flatMap((name) => parseHistoryFileName(name) ?? []);
  const unreadable = names.flatMap((name) => unreadableFormOf(name) ?? []);
  // A cluster that was only named says nothing of what is there.
  const isKnown = ledger !== undefined || cluster?.segmentSize !== undefined;
  if (!isKnown && wal.length === 0 && told.length === 0) {
    throw new ArchiveAccessError(`"${place}" holds no WAL and no ledger`, {
      path: place,
      hint: 'Is it mounted, and the right directory?',
    });
  }
  // What a store says of itself was written once; a receiver's files may have been mixed up.
  const sample = cluster?.segmentSize
    ? undefined
    : await sampleIdentity(archive, wal, ledger?.systemId);
  requireSameCluster(place, systemId, (sample ?? cluster)?.systemId);
  const segmentSize = ledger?.segmentSize ?? cluster?.segmentSize ?? sample!.segmentSize;
  const histories: TimelineHistory[] = [];
  for (const timeline of told) {
    const history = await requireHistory(timeline, [archive]);
    if (history) histories.push(history);
  }
  const segments = segmentsByTimeline([...wal, ...unreadable], segmentSize);
  return { names, ledger, segmentSize, segments, histories };
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

/**
 * What shows that the WAL of a timeline goes on behind a segment: a later segment, or a child that
 * branched off later. Undefined if nothing does.
 */
export function goesOnBehind(
  { histories, segments, segmentSize }: Holdings,
  timeline: number,
  segment: bigint,
): string | undefined {
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

/** A later timeline's file that begins with the WAL of an ancestor's last segment. */
export interface ForkedFile {
  file: StoredSegment;
  /** Where the ancestor ends; what is behind is not its WAL. */
  fork: Lsn;
}

/**
 * The files of later timelines that repeat the segment in which a timeline ends, up to there. Some
 * servers keep no other file of it, so that a receiver can have the ancestor's end in these only.
 */
export async function forkedFiles(
  { histories, segmentSize }: Holdings,
  archive: Archive,
  wanted: FetchName,
  segment: bigint,
): Promise<ForkedFile[]> {
  const begin = segmentStart(segment, segmentSize);
  const found: ForkedFile[] = [];
  for (const history of histories) {
    const fork = timelineEnd(history, wanted.timeline);
    if (fork === undefined || fork <= begin || segmentOf(fork, segmentSize) !== segment) continue;
    const lineage = [...history.ancestors.map((a) => a.timeline), history.timeline];
    for (const timeline of lineage.filter((t) => t > wanted.timeline)) {
      const base = segmentFileName(timeline, segment, segmentSize);
      for (const partial of [false, true]) {
        for (const file of await archive.stored(base, partial)) found.push({ file, fork });
      }
    }
  }
  // Of several branches the one that left last.
  return found.sort((a, b) => Number(b.fork - a.fork));
}

/** A segment that the server has itself, beside the target, and reads if it is told "not there". */
export interface ServerSegment {
  /** End of the last complete good record. */
  validEnd: Lsn;
  /** The WAL is good up to the end of the segment. */
  whole: boolean;
}

/** A segment as it must be to count; what is not known is taken from its first page. */
export type ExpectedSegment = Pick<
  SegmentIdentity,
  'timeline' | 'history' | 'segment' | 'segmentSize'
> & { systemId: bigint | undefined };

/**
 * What the server has of a segment in its pg_wal: from a walreceiver, from the backup, saved from
 * the primary. Undefined if there is none, or one of another address, as recycled ones are.
 */
export async function readServerSegment(
  archive: Archive,
  target: string,
  expected: ExpectedSegment,
): Promise<ServerSegment | undefined> {
  const { timeline, history, segment, segmentSize } = expected;
  const name = segmentFileName(timeline, segment, segmentSize);
  if (basename(target) === name) return undefined;
  const [{ continuesRecord, verifierOf }, { readHead, readStored }] = await Promise.all([
    import('./complete.js'),
    import('../archive/lead-in.js'),
  ]);
  const file = { path: join(dirname(target), name), compression: 'none' } as const;
  const head = await readHead(file, AT_ONCE).catch(() => undefined);
  const { systemId } = expected;
  const found = head && identifySegment(head, { name, systemId, segmentSize });
  const isIt =
    found?.state === 'this' &&
    found.header.segmentSize === segmentSize &&
    sizeOf(file.path) === segmentSize;
  if (!isIt) return undefined;
  const identity = { ...found.header, timeline, history, segment };
  const { verifier } = await verifierOf(
    { ...identity, continues: continuesRecord(head as Uint8Array) },
    { archive, near: [dirname(target)] },
  );
  await readStored(file, segmentSize, (bytes) => void verifier.feed(bytes), AT_ONCE);
  return { validEnd: verifier.validEnd, whole: verifier.fault === undefined };
}

function sizeOf(path: string): number | undefined {
  try {
    return fs.statSync(path).size;
  } catch {
    return undefined;
  }
}
