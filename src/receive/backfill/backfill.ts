import { readdir } from 'node:fs/promises';
import { setImmediate } from 'node:timers/promises';
import type { Ledger, LedgerEntry } from '../../archive/ledger.js';
import type { ArchiveKeys } from '../../archive/places/open-archive.js';
import { BackfillError } from '../../errors.js';
import { storageError } from '../../files/durable.js';
import { formatLsn, type Lsn } from '../../lsn.js';
import { VERSION } from '../../package.js';
import type { ReceiverWarning } from '../../server/warning.js';
import {
  historyFileName,
  parseSegmentFileName,
  segmentOf,
  segmentStart,
} from '../../wal/file-name.js';
import { parentTimeline } from '../../wal/timeline.js';
import {
  type BackfilledSegment,
  BackfillThread,
  OtherArchive,
  type OtherWal,
  segmentOnWay,
  type Way,
} from './other-archive.js';
import type { BackfillFailure } from './work.js';

/** Names that are looked at without a pause. */
const PAUSE = 1000;

/** Other archives of the cluster, from which a receiver takes what it lacks. */
export interface BackfillOption {
  /** Directories, stores, directories of other machines (`ssh://`), asked in this order. */
  places: readonly string[];
  /** What opens what is encrypted there. */
  keys?: ArchiveKeys;
  /** Milliseconds between looks for what is missing inside the archive. Default 600000. */
  interval?: number;
}

/** A segment that came from another archive. */
export interface Backfilled {
  /** Its end. */
  lsn: Lsn;
  timeline: number;
  /** Its bare name. */
  name: string;
  /** Where it was taken from. */
  place: string;
}

/** What hears of it. */
export interface BackfillListener {
  taken(segment: Backfilled): void;
  warn(warning: ReceiverWarning): void;
}

/**
 * Takes segments from other archives of the cluster: only what lies on the server's way, what is
 * verified, and of an archive that says the same as this one where both have a segment.
 */
export class Backfill {
  readonly directory: string;
  readonly others: readonly OtherArchive[];
  readonly #thread = new BackfillThread();
  readonly #listener: BackfillListener;
  /** Each message once, until something was taken. */
  readonly #told = new Set<string>();

  constructor(
    directory: string,
    { places, keys = {} }: BackfillOption,
    listener: BackfillListener,
  ) {
    this.directory = directory;
    this.#listener = listener;
    this.others = places.map((place) => new OtherArchive(place, directory, keys, this.#thread));
  }

  /**
   * Takes what follows `from`, a segment after the other, as far as the others have it without a
   * hole, and notes in the ledger what is held now.
   * @returns how many segments
   * @throws BackfillError if there are none, and one that may have them could not be asked; the
   *   signal's reason
   */
  async goOn(from: Lsn, way: Way, ledger: Ledger, signal: AbortSignal): Promise<number> {
    const first = segmentOf(from, way.segmentSize);
    let next = first;
    let unasked: string | undefined;
    for (const other of this.others) {
      const found = await this.look(other, way);
      if (found.state === 'failed') {
        if (!found.refused) unasked ??= found.message;
        continue;
      }
      const before = segmentOnWay(way, next - 1n);
      const proved = (await this.own(way)).has(before.segment) && found.wal.has(before);
      if (proved && (await this.take(other, way, before)) !== 'present') continue;
      for (;;) {
        signal.throwIfAborted();
        const wanted = segmentOnWay(way, next);
        if (!found.wal.has(wanted)) break;
        const how = await this.take(other, way, wanted);
        if (how === 'later') unasked ??= `${wanted.name} could not be read from ${other.place}`;
        if (how !== 'stored' && how !== 'present') break;
        await ledger.append(...held(ledger, way, wanted));
        next += 1n;
      }
    }
    const taken = Number(next - first);
    if (taken > 0 || unasked === undefined) return taken;
    throw new BackfillError(
      `WAL from ${formatLsn(from)} on is not on the server any more, and who may have it cannot be asked: ${unasked}`,
      { lsn: from },
    );
  }

  /** What another archive has on the server's way, with its histories here. Failures are told. */
  async look(
    other: OtherArchive,
    way: Way,
  ): Promise<{ state: 'looked'; wal: OtherWal } | BackfillFailure> {
    const wal = await other.look(way);
    if ('state' in wal) {
      this.#tell(other, wal);
      return wal;
    }
    for (const [timeline, content] of wal.histories) {
      const answer = await other.take(way, historyFileName(timeline), content);
      if (answer.state !== 'failed') continue;
      this.#tell(other, answer);
      return answer;
    }
    return { state: 'looked', wal };
  }

  /** Takes one segment. Failures are told. */
  async take(
    other: OtherArchive,
    way: Way,
    { name, timeline, segment }: BackfilledSegment,
  ): Promise<'stored' | 'present' | 'absent' | 'refused' | 'later'> {
    const { place } = other;
    const answer = await other.take(way, name);
    if (answer.state === 'failed') {
      this.#tell(other, answer);
      return answer.refused ? 'refused' : 'later';
    }
    if (answer.state === 'stored') {
      this.#told.clear();
      const lsn = segmentStart(segment + 1n, way.segmentSize);
      this.#listener.taken({ lsn, timeline, name, place });
    }
    return answer.state;
  }

  /** The complete segments that are here, on the server's way. */
  async own(way: Way): Promise<Set<bigint>> {
    const names = await readdir(this.directory).catch((e) => {
      throw storageError('open directory', this.directory, e);
    });
    const found = new Set<bigint>();
    for (const [i, name] of names.entries()) {
      // Acknowledgements wait for this thread.
      if (i % PAUSE === 0) await setImmediate();
      const file = parseSegmentFileName(name, way.segmentSize);
      if (!file || file.partial) continue;
      if (segmentOnWay(way, file.segment).timeline === file.timeline) found.add(file.segment);
    }
    return found;
  }

  /** Ends what is under way. */
  close(): Promise<void> {
    return this.#thread.close();
  }

  #tell({ place }: Pick<OtherArchive, 'place'>, { message, refused }: BackfillFailure): void {
    if (this.#told.has(message)) return;
    this.#told.add(message);
    this.#listener.warn({
      code: 'WK_BACKFILL',
      message: refused
        ? `nothing is taken from ${place} that does not belong here: ${message}`
        : `what is missing here cannot be taken from ${place} now: ${message}`,
      hint: refused
        ? 'Give the archive of the same cluster, and check it with "walkeep verify".'
        : 'It is asked again.',
    });
  }
}

/** What the ledger says once a segment is here that follows all that it has. */
function held(
  { state }: Ledger,
  way: Way,
  { timeline, segment }: BackfilledSegment,
): LedgerEntry[] {
  const { systemId, segmentSize, history } = way;
  const entries: LedgerEntry[] = [];
  const first = state.systemId === undefined;
  if (first) entries.push({ type: 'open', systemId, segmentSize, version: VERSION });
  if (state.timeline !== timeline) {
    const parent = parentTimeline(history, timeline);
    const start = segmentStart(segment, segmentSize);
    const why = first ? 'adopted' : 'switch';
    const of = parent === undefined ? {} : { parent };
    entries.push({ type: 'timeline', timeline, start, why, ...of });
  }
  const lsn = segmentStart(segment + 1n, segmentSize);
  return [...entries, { type: 'complete', lsn, timeline }];
}
