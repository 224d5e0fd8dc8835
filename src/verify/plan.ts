import type { Catalog, CatalogSegment, CatalogTimeline } from '../archive/catalog.js';
import { neededUpTo } from '../archive/catalog-lineage.js';
import type { GapEntry } from '../archive/ledger.js';
import { storedUpTo } from '../archive/ledger-entry.js';
import type { ArchiveOptions } from '../archive/places/open-archive.js';
import type { Lsn } from '../lsn.js';
import { segmentOf, segmentStart } from '../wal/file-name.js';
import { MAX_RECORD_LENGTH } from '../wal/record.js';
import { type TimelineHistory, timelineEnd } from '../wal/timeline.js';

/** One segment to check. */
export interface JobSegment {
  segment: bigint;
  /** Bare names, the one to check first; the others are compared with it. */
  files: string[];
  /**
   * What a partial file means here: the end of its timeline's WAL, the edge of a gap that was
   * accepted, or a hole, since WAL goes on behind it.
   */
  partial: 'tail' | 'accepted' | 'inside';
  /** A later timeline begins here, in the middle of the segment: a hole only if it ends before. */
  fork?: Lsn;
  /** Nothing behind it on its timeline is complete: a receiver that runs may be about to name it. */
  queued?: boolean;
}

/** Which part of an archive is asked for. */
export interface Scope {
  /** Only what reaches beyond this LSN. */
  since?: Lsn | undefined;
  timeline?: number | undefined;
}

/** Contiguous segments that one thread checks as one stream. Can be sent to a thread. */
export interface VerifyJob {
  /** The archive's, for a thread to open it. */
  place: string;
  keys: ArchiveOptions | undefined;
  segmentSize: number;
  blockSize: number;
  systemId: bigint | undefined;
  magic: number | undefined;
  timeline: number;
  history: TimelineHistory | undefined;
  segments: JobSegment[];
  /** What comes behind them: to be read until the first record that begins there is checked. */
  follow: JobSegment[];
  /** The segments are only there to lead into what follows; others check them. */
  leadIn: boolean;
  /** Only sizes and the first page header of each segment. */
  quick: boolean;
  /** On this timeline, WAL was acknowledged up to here. */
  flushed: Lsn | undefined;
}

/** Bytes of WAL in a job unless told otherwise: enough to keep a thread busy, little enough to share the work evenly. */
const DEFAULT_JOB_BYTES = 64 * 1024 * 1024;

/** Divides an archive, or what is asked for of it, into jobs. */
export function planJobs(
  catalog: Catalog,
  options: Scope & {
    quick?: boolean | undefined;
    jobBytes?: number | undefined;
    keys?: ArchiveOptions | undefined;
  },
): VerifyJob[] {
  const { archive, segmentSize, blockSize, systemId, magic, ledger } = catalog;
  const cluster = {
    place: archive.place,
    keys: options.keys,
    segmentSize,
    blockSize,
    systemId,
    magic,
  };
  const first = options.since === undefined ? 0n : segmentOf(options.since, segmentSize);
  const bytes = options.jobBytes ?? DEFAULT_JOB_BYTES;
  const perJob = Math.max(1, Math.floor(bytes / segmentSize));
  const jobs: VerifyJob[] = [];
  for (const t of catalog.timelines) {
    if (options.timeline !== undefined && options.timeline !== t.timeline) continue;
    const flushed = ledger?.timeline === t.timeline ? storedUpTo(ledger) : undefined;
    const { timeline, history } = t;
    const quick = options.quick ?? false;
    const common = { ...cluster, timeline, history, quick, flushed };
    for (const range of t.ranges) {
      const segments = range.segments
        .filter((s) => s.segment >= first)
        .map((s) => jobSegment(catalog, t, s));
      if (segments.length === 0) continue;
      const before = quick ? undefined : segmentBefore(catalog, t, segments[0]!.segment);
      const parts = divide(segments, perJob);
      if (before) {
        jobs.push({ ...common, segments: [before], follow: after(segments, 0), leadIn: true });
      }
      for (const [from, to] of parts) {
        const follow = quick ? [] : after(segments, to);
        jobs.push({ ...common, segments: segments.slice(from, to), follow, leadIn: false });
      }
    }
  }
  return jobs;

  /** As much as the longest record can need. */
  function after(segments: JobSegment[], at: number): JobSegment[] {
    return segments.slice(at, at + Math.ceil(MAX_RECORD_LENGTH / segmentSize) + 1);
  }
}

/** The segment before the first one of a timeline, on the ancestor that it branched off. */
function segmentBefore(
  catalog: Catalog,
  t: CatalogTimeline,
  first: bigint,
): JobSegment | undefined {
  for (const { timeline, end } of [...(t.history?.ancestors ?? [])].reverse()) {
    if (first - 1n > segmentOf(end, catalog.segmentSize)) break;
    const parent = catalog.timelines.find((p) => p.timeline === timeline);
    const segment = parent?.segments.find((s) => s.segment === first - 1n);
    if (parent && segment) return jobSegment(catalog, parent, segment);
  }
  return undefined;
}

function jobSegment(catalog: Catalog, t: CatalogTimeline, s: CatalogSegment): JobSegment {
  const { segment } = s;
  const files = s.files.map((f) => f.name);
  const fork =
    t.segments.at(-1) === s && s.files[0]!.partial ? forkBehind(catalog, t, s) : undefined;
  if (t.segments.at(-1) === s && fork === undefined) return { segment, files, partial: 'tail' };
  if (isAccepted(catalog, t.timeline, segment)) return { segment, files, partial: 'accepted' };
  const here = fork !== undefined && segmentOf(fork, catalog.segmentSize) === segment;
  const complete = t.segments.findLast((other) => !other.files[0]!.partial);
  const queued = complete === undefined || complete.segment < segment;
  return { segment, files, partial: 'inside', queued, ...(here ? { fork } : {}) };
}

/** Up to where a timeline's WAL is needed, if that is behind the begin of its last segment. */
function forkBehind(catalog: Catalog, t: CatalogTimeline, s: CatalogSegment): Lsn | undefined {
  const needed = neededUpTo(t.timeline, catalog.timelines, catalog.segmentSize);
  const start = segmentStart(s.segment, catalog.segmentSize);
  return needed !== undefined && needed > start ? needed : undefined;
}

function isAccepted(catalog: Catalog, timeline: number, segment: bigint): boolean {
  const gaps = catalog.ledger?.gaps ?? [];
  return gaps.some(
    (gap) =>
      segmentOf(gap.from, catalog.segmentSize) === segment && beginsOn(catalog, gap, timeline),
  );
}

/** True if a gap, which was accepted for the timeline behind it, can begin on this one. */
function beginsOn({ timelines }: Catalog, gap: GapEntry, timeline: number): boolean {
  if (gap.timeline <= timeline) return gap.timeline === timeline;
  const history = timelines.find((t) => t.timeline === gap.timeline)?.history;
  const end = history && timelineEnd(history, timeline);
  return history === undefined || (end !== undefined && gap.from < end);
}

/**
 * Cuts a run of segments into parts. Never in front of a partial: it is judged by the record that
 * leads into it.
 */
function divide(segments: readonly JobSegment[], size: number): [number, number][] {
  const parts: [number, number][] = [];
  let from = 0;
  for (let to = 1; to <= segments.length; to++) {
    const next = segments[to];
    if (to < segments.length && to - from < size) continue;
    if (next?.files[0]?.endsWith('.partial')) continue;
    parts.push([from, to]);
    from = to;
  }
  return parts;
}
