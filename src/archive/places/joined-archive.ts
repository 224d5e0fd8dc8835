import { CorruptObjectError, SystemIdentifierError } from '../../errors.js';
import type { DirectoryEntry } from '../../files/file-system.js';
import { MAX_SEGMENT_SIZE, parseStoredName } from '../../wal/file-name.js';
import type { StoredHistory } from '../../wal/history-file.js';
import { lengthWithoutZeros } from '../../wal/zeros.js';
import { isGone } from '../access.js';
import type { Archive, ArchiveCluster } from '../archive.js';
import type { LedgerState } from '../ledger-entry.js';
import type { StoredSegment } from '../segment-source.js';
import { SoundCopies } from './sound-copy.js';

/**
 * Several archives of one cluster, to be read as one: what each of them has, of what several have the
 * first one's, and of a segment the first good copy. All of them must answer: what one could not tell nobody can. Nothing is removed.
 */
export class JoinedArchive implements Archive {
  readonly place: string;
  readonly isDirectory: boolean;
  readonly #all: readonly Archive[];
  readonly #sound: SoundCopies;
  /** The segments that each of them had whole when it was listed. */
  readonly #listed = new Map<Archive, Set<string>>();

  constructor(all: readonly Archive[]) {
    this.place = all.map(({ place }) => place).join(', ');
    this.isDirectory = all.every(({ isDirectory }) => isDirectory);
    this.#all = all;
    this.#sound = new SoundCopies(
      all,
      async () => (await this.cluster())?.systemId,
      (timeline) => this.history(timeline),
      async (archive, base) =>
        this.#listed.get(archive)?.has(base) ?? (await archive.completeName(base)) !== undefined,
    );
  }

  get passedOver() {
    return this.#sound.passedOver;
  }

  async reach(): Promise<void> {
    for (const archive of this.#all) await archive.reach();
  }

  /** @throws SystemIdentifierError if they are of several */
  async cluster(): Promise<ArchiveCluster | undefined> {
    let found: ArchiveCluster | undefined;
    for (const archive of this.#all) {
      const cluster = await archive.cluster();
      if (cluster && found && cluster.systemId !== found.systemId) {
        throw new SystemIdentifierError(`"${archive.place}" is the archive of another cluster`, {
          expected: String(found.systemId),
          actual: String(cluster.systemId),
          hint: 'Give archives of one cluster.',
        });
      }
      if (cluster?.segmentSize !== undefined) found ??= cluster;
    }
    return found;
  }

  list(): Promise<DirectoryEntry[]> {
    return this.#union(async (archive) => {
      const entries = await archive.list();
      const names = entries.map(({ name }) => parseStoredName(name));
      const whole = names.filter((name) => name?.kind === 'segment' && !name.partial);
      this.#listed.set(archive, new Set(whole.map((name) => name!.base)));
      return entries;
    });
  }

  listAround(base: string): Promise<DirectoryEntry[]> {
    return this.#union((archive) => archive.listAround(base));
  }

  async #union(list: (archive: Archive) => Promise<DirectoryEntry[]>): Promise<DirectoryEntry[]> {
    const entries = new Map<string, DirectoryEntry>();
    for (const archive of this.#all) {
      for (const entry of await list(archive)) {
        if (!entries.has(entry.name)) entries.set(entry.name, entry);
      }
    }
    return [...entries.values()];
  }

  async has(name: string): Promise<boolean> {
    return (
      (await this.#first((archive) => archive.has(name).then((has) => has || undefined))) ?? false
    );
  }

  /** Of several receivers' that of the one that got furthest. */
  async ledger(): Promise<LedgerState | undefined> {
    let best: LedgerState | undefined;
    for (const archive of this.#all) {
      const ledger = await archive.ledger();
      if (ledger && (best === undefined || isFurther(ledger, best))) best = ledger;
    }
    return best;
  }

  async history(timeline: number): Promise<StoredHistory> {
    let damaged: StoredHistory | undefined;
    for (const archive of this.#all) {
      const found = await archive.history(timeline);
      if (found.state === 'good') return found;
      if (found.state === 'damaged') damaged ??= found;
    }
    return damaged ?? { state: 'absent' };
  }

  text(name: string): Promise<Buffer | undefined> {
    return this.#first((archive) => archive.text(name));
  }

  async stored(base: string, partial: boolean): Promise<StoredSegment[]> {
    const found: StoredSegment[] = [];
    for (const archive of this.#all) found.push(...(await archive.stored(base, partial)));
    return found;
  }

  async segment<T>(name: string, read: (file: StoredSegment) => T | Promise<T>): Promise<T> {
    let last: unknown = new Lesser();
    const ask = async (all: readonly Archive[], mayBeLess: boolean) => {
      for (const archive of all) {
        try {
          const value = await archive.segment(name, (file) => {
            if (file.partial && !mayBeLess) throw new Lesser();
            return read(file);
          });
          return { value };
        } catch (e) {
          if (!(e instanceof Lesser) && !isGone(e)) throw e;
          last = e;
        }
      }
      return undefined;
    };
    const parsed = parseStoredName(name);
    const partial = parsed?.kind === 'segment' && parsed.partial;
    // One that has only the begin of a segment is asked when none has all of it.
    const whole = partial
      ? undefined
      : await ask(await this.#sound.inOrder(name.slice(0, 24)), false);
    const found = whole ?? (await ask(await this.#byLength(name), true));
    if (found) return found.value;
    throw last;
  }

  /** Those that have something of a segment, the one with the most of it first. */
  async #byLength(name: string): Promise<Archive[]> {
    const found: { archive: Archive; end: number }[] = [];
    for (const archive of this.#all) {
      try {
        found.push({ archive, end: await archive.segment(name, lengthOf) });
      } catch (e) {
        if (!isGone(e)) throw e;
      }
    }
    return found.sort((a, b) => b.end - a.end).map(({ archive }) => archive);
  }

  completeName(name: string): Promise<string | undefined> {
    return this.#first((archive) => archive.completeName(name));
  }

  async refuseIrregular(base: string, partial: boolean): Promise<void> {
    for (const archive of this.#all) await archive.refuseIrregular(base, partial);
  }

  async refuseUnreadableForm(base: string): Promise<void> {
    for (const archive of this.#all) await archive.refuseUnreadableForm(base);
  }

  async remove(): Promise<never> {
    throw new TypeError('nothing is removed from several archives at once');
  }

  receiver() {
    return this.#first((archive) => archive.receiver());
  }

  async close(): Promise<void> {
    for (const archive of this.#all) await archive.close();
  }

  async #first<T>(ask: (archive: Archive) => Promise<T | undefined>): Promise<T | undefined> {
    for (const archive of this.#all) {
      const answer = await ask(archive);
      if (answer !== undefined) return answer;
    }
    return undefined;
  }
}

/** Bytes up to the last one that is not zero, or to where it is damaged. */
async function lengthOf(file: StoredSegment): Promise<number> {
  let end = 0;
  try {
    let at = 0;
    for await (const piece of file.bytes(MAX_SEGMENT_SIZE)) {
      const length = lengthWithoutZeros(piece);
      if (length > 0) end = at + length;
      at += piece.length;
    }
  } catch (e) {
    if (!(e instanceof CorruptObjectError)) throw e;
  }
  return end;
}

/** Ends a look at what is no whole segment. */
class Lesser extends Error {}

function isFurther(a: LedgerState, b: LedgerState): boolean {
  const [x = 0, y = 0] = [a.timeline, b.timeline];
  return x === y ? (a.end ?? 0n) > (b.end ?? 0n) : x > y;
}
