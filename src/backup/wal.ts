import { open } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import type { Archive } from '../archive/archive.js';
import { inspectWal, type KnownWal } from '../archive/good-wal.js';
import { endOfPartial } from '../archive/store-keys.js';
import type { WalRange } from '../base/manifest.js';
import { ArchiveAccessError, GapError, StoreUncertainError, TimeoutError } from '../errors.js';
import { fsyncError, storageError } from '../files/durable.js';
import { formatLsn, type Lsn } from '../lsn.js';
import {
  historyFileName,
  parseStoredName,
  segmentFileName,
  segmentOf,
  segmentStart,
} from '../wal/file-name.js';

/** Milliseconds between two looks: at first, and at most. */
const SOON = 100;
const LATER = 1000;

/** Segments that may be on their way. */
const RECENT = 4n;

/** The WAL without which a backup is of no use. */
export interface NeededWal {
  /** Newest timeline first, as in a manifest. */
  ranges: readonly WalRange[];
  segmentSize: number;
  known: KnownWal;
}

export interface WaitOptions {
  /** Milliseconds. */
  timeout: number;
  signal?: AbortSignal | undefined;
  /** Told when something else is waited for. */
  onWait?: ((what: string) => void) | undefined;
  /** Called at each look that finds something missing. */
  help?: ((missing: MissingWal) => Promise<void>) | undefined;
}

/** What is not in the archive yet. */
export interface MissingWal {
  /** Of the segment, or of the history file. */
  name: string;
  timeline: number;
  /** Up to here the segment must have WAL; absent of a history file. */
  end?: Lsn;
  /** Why what there is of it does not do. */
  why: string;
}

/**
 * Waits until an archive has all WAL that a backup needs, durable: of a segment that is not
 * complete its partial counts, if its WAL is good up to where it is needed.
 * @throws TimeoutError that names what is missing; what the archive throws where it cannot tell
 */
export async function waitForWal(
  archive: Archive,
  needed: NeededWal,
  { timeout, signal, onWait, help }: WaitOptions,
): Promise<void> {
  const parts = partsOf(needed);
  const deadline = performance.now() + timeout;
  let told: string | undefined;
  for (let pause = SOON; ; pause = Math.min(LATER, pause * 1.5)) {
    let missing: MissingWal | undefined;
    while (parts.length > 0) {
      missing = await missingOf(archive, parts[0] as Part, needed);
      signal?.throwIfAborted();
      if (missing) break;
      parts.shift();
      pause = SOON;
    }
    if (!missing) return;
    if (missing.name !== told) onWait?.(missing.name);
    told = missing.name;
    if (performance.now() >= deadline) throw tooLate(archive, missing, timeout);
    await help?.(missing);
    await delay(pause, undefined, { signal });
  }
}

/**
 * Why it does not look as if anybody received into the archive; undefined if somebody seems to: then
 * there is something of the last segments of the server, or of its history.
 */
export async function whyNotReceiving(
  archive: Archive,
  { timeline, flushLsn, segmentSize }: { timeline: number; flushLsn: Lsn; segmentSize: number },
): Promise<string | undefined> {
  const current = segmentOf(flushLsn, segmentSize);
  try {
    for (let back = 0n; back < RECENT && back <= current; back++) {
      const name = segmentFileName(timeline, current - back, segmentSize);
      if ((await archive.stored(name, false)).length > 0) return undefined;
      if ((await archive.stored(name, true)).length > 0) return undefined;
    }
  } catch (e) {
    if (e instanceof ArchiveAccessError) return e.message;
    throw e;
  }
  const name = segmentFileName(timeline, current, segmentSize);
  return `it has neither "${name}", in which the server is, nor one of the ${RECENT - 1n} before`;
}

/**
 * Refuses a backup that begins with WAL from before what a directory archive has: a receiver goes on
 * behind that, and it will not come. A standby's backup begins at its last restart point, which may be
 * long ago. Into a store segments may come in another order: there it is waited for.
 * @throws GapError
 */
export async function requireStart(
  archive: Archive,
  { lsn, timeline }: { lsn: Lsn; timeline: number },
  segmentSize: number,
): Promise<void> {
  if (!archive.isDirectory) return;
  const name = segmentFileName(timeline, segmentOf(lsn, segmentSize), segmentSize);
  // Looked for last: what is there under another name by now was there all the time.
  const behind = (await archive.listAround(name)).some((entry) => {
    const stored = parseStoredName(entry.name);
    return stored?.kind === 'segment' && stored.timeline === timeline && stored.base > name;
  });
  if (!behind) return;
  for (const partial of [false, true]) {
    if ((await archive.stored(name, partial)).length > 0) return;
  }
  throw new GapError(`"${archive.place}" does not have "${name}", where the backup begins`, {
    ...{ path: archive.place, lsn },
    detail: 'It has WAL from behind it, so that it will not come.',
    hint: 'On a standby a later restart point helps: CHECKPOINT on the primary, then on the standby. Or take the WAL into the backup with --wal include.',
  });
}

/** One file that recovery asks for. */
type Part =
  | { kind: 'history'; timeline: number }
  | { kind: 'segment'; timelines: number[]; segment: bigint; end: Lsn };

/** In the order in which recovery reads them. */
function partsOf({ ranges, segmentSize }: NeededWal): Part[] {
  const parts: Part[] = [];
  const oldest = [...ranges].reverse();
  for (const [i, { timeline, start, end }] of oldest.entries()) {
    if (timeline > 1) parts.push({ kind: 'history', timeline });
    const last = segmentOf((end > start ? end - 1n : end) as Lsn, segmentSize);
    for (let segment = segmentOf(start, segmentSize); segment <= last; segment++) {
      const whole = segmentStart(segment + 1n, segmentSize);
      // The segment in which a timeline ends begins on the next one with a copy of it.
      const next = oldest.slice(i + 1).filter((r) => segmentOf(r.start, segmentSize) === segment);
      const timelines = [timeline, ...next.map((r) => r.timeline)];
      parts.push({ kind: 'segment', timelines, segment, end: end < whole ? end : whole });
    }
  }
  return parts;
}

async function missingOf(
  archive: Archive,
  part: Part,
  needed: NeededWal,
): Promise<MissingWal | undefined> {
  try {
    if (part.kind === 'segment') return await missingSegment(archive, part, needed);
    const { timeline } = part;
    const name = historyFileName(timeline);
    const { state } = await archive.history(timeline);
    return state === 'good' ? undefined : { name, timeline, why: `it is ${state}` };
  } catch (e) {
    // The place is asked again: so is one that nothing was shipped to yet.
    const passes = e instanceof StoreUncertainError || e instanceof ArchiveAccessError;
    if (!passes) throw e;
    const timeline = part.kind === 'segment' ? (part.timelines[0] as number) : part.timeline;
    return { name: nameOf(part, needed), timeline, why: e.message };
  }
}

function nameOf(part: Part, { segmentSize }: NeededWal): string {
  if (part.kind === 'history') return historyFileName(part.timeline);
  return segmentFileName(part.timelines[0] as number, part.segment, segmentSize);
}

async function missingSegment(
  archive: Archive,
  { timelines, segment, end }: Extract<Part, { kind: 'segment' }>,
  { segmentSize, known }: NeededWal,
): Promise<MissingWal | undefined> {
  let why = 'it is not there';
  const begin = segmentStart(segment, segmentSize);
  for (const timeline of timelines) {
    const name = segmentFileName(timeline, segment, segmentSize);
    const [whole] = await archive.stored(name, false);
    if (whole) {
      if (!whole.inStore) await makeDurable(whole.path);
      return undefined;
    }
    for (const partial of await archive.stored(name, true)) {
      // It was checked when it was stored, and may be encrypted: its key tells how far it goes.
      const upTo = partial.inStore ? endOfPartial(partial.path) : undefined;
      if (upTo !== undefined && upTo >= end) return undefined;
      if (upTo !== undefined) {
        why = `what there is of it ends at ${formatLsn(upTo as Lsn)}`;
        continue;
      }
      const { validLength } = await inspectWal(
        partial,
        { timeline, segment, compression: partial.compression, partial: true },
        segmentSize,
        known,
      );
      if (BigInt(validLength) >= end - begin) {
        if (!partial.inStore) await makeDurable(partial.path);
        return undefined;
      }
      why = `what there is of it ends at ${formatLsn((begin + BigInt(validLength)) as Lsn)}`;
    }
  }
  const [timeline] = timelines as [number];
  return { name: segmentFileName(timeline, segment, segmentSize), timeline, end, why };
}

/** A receiver may have written it and not have synced it yet. @throws StorageError */
async function makeDurable(path: string): Promise<void> {
  const file = await open(path, 'r').catch((e: NodeJS.ErrnoException) => {
    // It was completed or compressed meanwhile, which is durable.
    if (e.code === 'ENOENT') return undefined;
    throw storageError('open file', path, e);
  });
  try {
    await file?.sync().catch((e) => {
      throw fsyncError(path, e);
    });
  } finally {
    await file?.close();
  }
}

function tooLate(archive: Archive, { name, end, why }: MissingWal, timeout: number): TimeoutError {
  const upTo = end === undefined ? '' : ` with WAL up to ${formatLsn(end)}`;
  return new TimeoutError(
    `"${archive.place}" has no "${name}"${upTo} after ${Math.round(timeout / 1000)} s: without it the backup cannot be restored`,
    {
      path: archive.place,
      detail: `${name}: ${why}.`,
      hint: 'See that "walkeep receive" runs and receives into this archive, and, for a store, that "walkeep ship" does; or take the WAL into the backup with --wal include.',
    },
  );
}
