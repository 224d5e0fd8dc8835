import { stat } from 'node:fs/promises';
import { isGone } from '../archive/access.js';
import type { Archive } from '../archive/archive.js';
import { sampleIdentity } from '../archive/identity.js';
import { SeenMarks } from '../archive/index/seen-marks.js';
import { type HistoryFile, sortOut } from '../archive/listing.js';
import { openArchive } from '../archive/places/open-archive.js';
import type { StoredSegment } from '../archive/segment-source.js';
import {
  type CheckedWal,
  partialSegment,
  readChecked,
  wholeSegment,
} from '../archive/shipping/checked-segment.js';
import { type LocalSegment, localSegments } from '../archive/shipping/local-segments.js';
import { sharedBuffer } from '../codec/shared.js';
import { CorruptWalError, StorageError, WalkeepError } from '../errors.js';
import type { Lsn } from '../lsn.js';
import { parseSegmentFileName } from '../wal/file-name.js';
import type { StoredHistory } from '../wal/history-file.js';
import { rootHistory, type TimelineHistory, timelineEnd } from '../wal/timeline.js';

/** An unfinished segment. */
export interface OpenSegment extends LocalSegment {
  /** Changes whenever a file of it does. */
  fingerprint: string;
  /** When one of its files was last written to, by the clock of Date.now. */
  modified: number;
  /** Receiving has gone on to a later timeline: nothing will be added. */
  left: boolean;
}

/** What is written when a backup ends, behind all that is known when it starts (xlogbackup.c). */
const BACKUP_END = /^STOP TIMELINE: \d+$/m;

/** What is there to be shipped, at one look. */
export interface Snapshot {
  /** Undefined while nothing tells which cluster the WAL is of. */
  identity: { systemId: bigint; segmentSize: number } | undefined;
  complete: readonly LocalSegment[];
  partial: readonly OpenSegment[];
  histories: readonly HistoryFile[];
  /** Names of backup history files. */
  backups: readonly string[];
  /** Somebody receives into it, as far as can be seen. */
  receiver: boolean;
}

/** Whether a look showed what has this name, of a segment its 24 digits. */
export function isThere({ complete, partial, histories, backups }: Snapshot, key: string): boolean {
  const segments = [...complete, ...partial];
  return (
    segments.some(({ base }) => base === key) ||
    histories.some(({ name }) => name === key) ||
    backups.includes(key)
  );
}

/** What the look would have shown without it. */
export function without(snapshot: Snapshot, key: string): Snapshot {
  const complete = snapshot.complete.filter(({ base }) => base !== key);
  const partial = snapshot.partial.filter(({ base }) => base !== key);
  const histories = snapshot.histories.filter(({ name }) => name !== key);
  const backups = snapshot.backups.filter((name) => name !== key);
  return { ...snapshot, complete, partial, histories, backups };
}

/** What a segment turned out to be, when it was read. */
export type Loaded = { whole: boolean; wal: CheckedWal };

/**
 * Memory for one segment at a time, kept: as much as a segment is given back late by itself. The
 * compressing thread sees it as well.
 */
export class SegmentRoom {
  #buffer = sharedBuffer(0);

  of(segmentSize: number): Buffer {
    if (this.#buffer.length < segmentSize) this.#buffer = sharedBuffer(segmentSize);
    return this.#buffer;
  }
}

/** The archive that is shipped from: what is in it, checked before it leaves. */
export class ShipSource {
  readonly archive: Archive;
  #identity: Snapshot['identity'];

  private constructor(archive: Archive) {
    this.archive = archive;
  }

  /** Nothing is looked at yet. */
  static async open(place: string): Promise<ShipSource> {
    return new ShipSource(await openArchive(place));
  }

  /** @throws StorageError if it cannot be looked at */
  async scan(): Promise<Snapshot> {
    const receiver = (await this.archive.receiver()) !== undefined;
    const listing = sortOut(await this.archive.list());
    this.#identity ??= await this.#identify(listing.segments);
    const { histories, backups } = listing;
    if (!this.#identity) {
      return { identity: undefined, complete: [], partial: [], histories, backups, receiver };
    }
    const { segmentSize } = this.#identity;
    const { complete, partial } = localSegments(listing, segmentSize);
    const newest = [...complete, ...partial].reduce((n, s) => Math.max(n, s.timeline), 0);
    const open: OpenSegment[] = [];
    for (const segment of partial) {
      const looked = await this.#look(segment);
      if (looked) open.push({ ...segment, ...looked, left: segment.timeline < newest });
    }
    return { identity: this.#identity, complete, partial: open, histories, backups, receiver };
  }

  close(): Promise<void> {
    return this.archive.close();
  }

  async #identify(names: readonly string[]): Promise<Snapshot['identity']> {
    // A ledger that is damaged does not keep what it is about from being shipped.
    const told = await this.archive.cluster().catch((e) => {
      if (this.archive.isDirectory && e instanceof StorageError) return undefined;
      throw e;
    });
    if (told?.segmentSize) return { systemId: told.systemId, segmentSize: told.segmentSize };
    const { systemId, segmentSize } = await sampleIdentity(this.archive, names, told?.systemId);
    return systemId === undefined ? undefined : { systemId, segmentSize };
  }

  async #look({ names }: LocalSegment) {
    const marks: string[] = [];
    let modified = 0;
    for (const name of names) {
      const found = await this.archive
        .segment(name, async (file) => ({ name, ...(await lookAt(file)) }))
        .catch((e) => {
          if (isGone(e)) return undefined;
          throw e;
        });
      if (!found) continue;
      marks.push(`${found.name} ${found.size} ${found.modified}`);
      modified = Math.max(modified, found.modified);
    }
    return marks.length === 0 ? undefined : { fingerprint: marks.join(), modified };
  }

  /** Milliseconds since the epoch, by its clock, at which a file was last written; 0 if unknown. */
  async modified({ names }: LocalSegment): Promise<number> {
    const [name] = names;
    if (name === undefined) return 0;
    return this.archive.segment(name, lookAt).then(
      (found) => found.modified,
      () => 0,
    );
  }

  /**
   * Reads a complete segment from the first of its files that is good.
   * @param room of whoever asks; what is given lies in it
   * @throws CorruptWalError, SystemIdentifierError, StorageError if none is; see `isGone`
   */
  async load(segment: LocalSegment, room: SegmentRoom): Promise<Loaded> {
    let failure: unknown;
    for (const name of segment.names) {
      try {
        return await this.archive.segment(name, (file) => this.#loadFile(file, segment, room));
      } catch (e) {
        if (!(e instanceof WalkeepError)) throw e;
        failure = e;
      }
    }
    throw failure;
  }

  async #loadFile(file: StoredSegment, segment: LocalSegment, room: SegmentRoom): Promise<Loaded> {
    const { segmentSize } = this.#identity!;
    const expected = { ...this.#identity!, history: await this.#historyOf(segment.timeline) };
    const name = parseSegmentFileName(file.name, segmentSize)!;
    const seen = new SeenMarks();
    const into = room.of(segmentSize);
    const content = await readChecked(file, name, expected, into, segmentSize, seen);
    const forks = content.walEnd.fault ? await this.#forks(segment.timeline) : [];
    const described = { name: segment.base, path: file.path, segmentSize };
    const wal = wholeSegment(content, name, described, forks);
    if (wal) return { whole: true, wal };
    const rest = partialSegment(content, name, segment.base, segmentSize);
    if (rest) return { whole: false, wal: rest };
    throw new CorruptWalError(`"${file.path}" holds no WAL`, { path: file.path });
  }

  /** What is good of an unfinished segment, in the file that has most of it; undefined if nothing is. */
  async loadOpen(segment: LocalSegment, room: SegmentRoom): Promise<CheckedWal | undefined> {
    let best: CheckedWal | undefined;
    const { segmentSize } = this.#identity!;
    const expected = { ...this.#identity!, history: await this.#historyOf(segment.timeline) };
    for (const name of segment.names) {
      const wal = await this.archive.segment(name, async (file) => {
        const parsed = parseSegmentFileName(file.name, segmentSize)!;
        // Behind it a receiver may be writing: what is read there belongs to no one moment.
        const end = file.compression === 'none' ? await file.contentEnd() : segmentSize;
        const limit = Math.min(end, segmentSize);
        const content = await readChecked(file, parsed, expected, room.of(segmentSize), limit);
        if (content.walEnd.fault?.kind === 'system-identifier') {
          throw new StorageError(`"${file.path}" is of another cluster`, { path: file.path });
        }
        return partialSegment(content, parsed, segment.base, segmentSize);
      });
      if (wal && (!best || wal.end > best.end)) best = wal;
    }
    return best;
  }

  history(timeline: number): Promise<StoredHistory> {
    return this.archive.history(timeline);
  }

  /**
   * A backup history file; undefined if it is not there any more.
   * @throws StorageError if it is not all there: what copies it may still be at work
   */
  async backup(name: string): Promise<Buffer | undefined> {
    const content = await this.archive.text(name);
    const text = content?.toString('latin1');
    if (text === undefined || (BACKUP_END.test(text) && text.endsWith('\n'))) return content;
    const path = `${this.archive.place}/${name}`;
    throw new StorageError(`"${path}" does not say where its backup ended`, {
      path,
      hint: 'It was perhaps cut: put a whole copy in its place, or take it away.',
    });
  }

  async #historyOf(timeline: number): Promise<TimelineHistory | undefined> {
    if (timeline === 1) return rootHistory(1);
    const stored = await this.archive.history(timeline);
    // One that is damaged says nothing of the segment, which must not wait for its repair.
    return stored.state === 'good' ? stored.history : undefined;
  }

  /** Where a timeline ended, by the history files of its descendants. */
  async #forks(timeline: number): Promise<Lsn[]> {
    const forks: Lsn[] = [];
    for (const { timeline: child } of sortOut(await this.archive.list()).histories) {
      const history = child > timeline ? await this.#historyOf(child) : undefined;
      const end = history && timelineEnd(history, timeline);
      if (end !== undefined) forks.push(end);
    }
    return forks;
  }
}

/** Of a file in a directory; what lies elsewhere does not change. */
async function lookAt(file: StoredSegment): Promise<{ size: number; modified: number }> {
  const found = await stat(file.path).catch(() => undefined);
  if (found) return { size: found.size, modified: found.mtimeMs };
  return { size: await file.size(), modified: 0 };
}
