import { CorruptObjectError, StorageError } from '../../errors.js';
import { parseSegmentFileName, segmentFileName, segmentStart } from '../../wal/file-name.js';
import { WalVerifier } from '../../wal/verifier.js';
import { isGone } from '../access.js';
import type { Archive, PassedOver } from '../archive.js';
import { readFirstPage } from '../identity.js';
import { identifySegment } from '../segment-identity.js';
import type { StoredSegment } from '../segment-source.js';

/** How far a copy of a segment is good. */
interface Judged {
  archive: Archive;
  path: string;
  /** Up to here. */
  validEnd: bigint;
  /** What is wrong with it; undefined: nothing that its own bytes and those behind it tell. */
  problem: string | undefined;
  /** Its last record goes on in the next segment, and does not fit what is there. */
  torn: boolean;
}

/** A segment that was read for the end of a record. */
interface Used {
  archive: Archive;
  name: string;
  path: string;
  /** It was only begun, and ends there. */
  mayEnd: boolean;
  problem: string | undefined;
}

/** Segments of the usual size that the longest record goes over, and one. */
const MOST_FOLLOWED = 65;

/** Whether an archive has all of a segment. */
export type Has = (archive: Archive, base: string) => Promise<boolean>;

/**
 * Which of several archives' complete copies of a segment is to be read: the first one that is good,
 * else the one that is good furthest. Each copy that is looked at is read once for that.
 */
export class SoundCopies {
  /** Copies that are damaged and were not taken, since another one is better. */
  readonly passedOver: PassedOver[] = [];
  readonly #all: readonly Archive[];
  readonly #systemId: () => Promise<bigint | undefined>;
  readonly #history: Archive['history'];
  readonly #has: Has;
  readonly #chosen = new Map<string, Promise<readonly Archive[]>>();
  /** By segment, the archive whose copy goes on with the record at the end of the one before. */
  readonly #goesOn = new Map<string, Archive>();

  constructor(
    all: readonly Archive[],
    systemId: () => Promise<bigint | undefined>,
    history: Archive['history'],
    has: Has,
  ) {
    this.#all = all;
    this.#systemId = systemId;
    this.#history = history;
    this.#has = has;
  }

  /** Those of the archives that have it, the one to be read first. */
  inOrder(base: string): Promise<readonly Archive[]> {
    let order = this.#chosen.get(base);
    if (!order) {
      order = this.#choose(base);
      this.#chosen.set(base, order);
      order.catch(() => this.#chosen.delete(base));
    }
    return order;
  }

  async #choose(base: string): Promise<readonly Archive[]> {
    const having: Archive[] = [];
    for (const archive of this.#all) {
      if (await this.#has(archive, base)) having.push(archive);
    }
    if (having.length < 2) return having;
    const first = this.#goesOn.get(base);
    const judged: Judged[] = [];
    for (const archive of having.sort((a, b) => Number(b === first) - Number(a === first))) {
      const found = await this.#judge(archive, base);
      if (!found) continue;
      judged.push(found);
      if (found.problem === undefined) break;
    }
    judged.sort(bestFirst);
    const [best, ...others] = judged;
    for (const { path, problem, validEnd, torn } of others) {
      // Good to where the next segment is bad is as good as it gets: nobody knows whose fault it is.
      const worse = best !== undefined && (torn ? !best.torn : validEnd < best.validEnd);
      if (best && problem !== undefined && (worse || best.problem === undefined)) {
        this.#pass({ path, problem, instead: best.path });
      }
    }
    const order = judged.map(({ archive }) => archive);
    return [...order, ...having.filter((archive) => !order.includes(archive))];
  }

  #pass(copy: PassedOver): void {
    if (!this.passedOver.some(({ path }) => path === copy.path)) this.passedOver.push(copy);
  }

  /** Undefined: it is gone again, or no complete one any more. */
  async #judge(archive: Archive, base: string): Promise<Judged | undefined> {
    try {
      return await archive.segment(base, async (file) => {
        return file.partial ? undefined : this.#judgeFile(archive, file, base);
      });
    } catch (e) {
      if (isGone(e)) return undefined;
      if (!(e instanceof StorageError || e instanceof CorruptObjectError)) throw e;
      return { archive, path: pathOf(e, archive), validEnd: 0n, problem: e.message, torn: false };
    }
  }

  async #judgeFile(archive: Archive, file: StoredSegment, base: string): Promise<Judged> {
    const { path } = file;
    const wrong = (problem: string, validEnd = 0n, torn = false): Judged => {
      return { archive, path, validEnd, problem, torn };
    };
    const header = await this.#headerOf(file, base);
    if (typeof header === 'string') return wrong(header);
    const { segmentSize, systemId } = header;
    const name = parseSegmentFileName(base, segmentSize);
    if (!name) return wrong('it is called as no segment of its size is');
    const { timeline, segment } = name;
    const history = await this.#history(timeline);
    const startLsn = segmentStart(segment, segmentSize);
    const verifier = () =>
      new WalVerifier({
        startLsn,
        segmentSize,
        systemId,
        ...(history.state === 'good' ? { history: history.history } : { timeline }),
      });
    const wal = verifier();
    const feed = async (into: WalVerifier) =>
      file.read(segmentSize, (bytes) => into.feed(bytes) === undefined, { readAhead: true });
    const { end, problem, bytes } = await feed(wal);
    const { fault, validEnd } = wal;
    if (fault) return wrong(fault.message, validEnd);
    if (end === 'damaged') return wrong(problem ?? 'it is damaged', validEnd);
    if (bytes !== segmentSize) return wrong(`it has ${bytes} bytes of ${segmentSize}`, validEnd);
    const sound: Judged = { archive, path, validEnd, problem: undefined, torn: false };
    // No record that would have to go on.
    if (validEnd === wal.position || wal.isSkipping || wal.unused > 0) return sound;
    const names = Array.from({ length: MOST_FOLLOWED }, (_, i) =>
      segmentFileName(timeline, segment + BigInt(i) + 1n, segmentSize),
    );
    let torn: { problem: string; path: string } | undefined;
    for (const other of [archive, ...this.#all.filter((one) => one !== archive)]) {
      const through = torn ? verifier() : wal;
      if (torn) await feed(through);
      const followed = await this.#follow(other, names, segmentSize, through);
      if ('problem' in followed) {
        torn ??= followed;
        continue;
      }
      const [next] = followed;
      for (const used of followed) {
        if (this.#goesOn.get(used.name) === used.archive) continue;
        this.#goesOn.set(used.name, used.archive);
        // It may have been looked at without what is before it.
        this.#chosen.delete(used.name);
      }
      if (torn && next && next.path !== torn.path) {
        this.#pass({ ...torn, instead: next.path });
      }
      return sound;
    }
    return torn ? wrong(torn.problem, validEnd, true) : sound;
  }

  /**
   * Feeds what is behind a segment up to the end of the record that begins in it, as far as it is
   * there: of one archive, and what that does not have of any other. `path`: what comes first.
   */
  async #follow(
    archive: Archive,
    names: readonly string[],
    segmentSize: number,
    wal: WalVerifier,
  ): Promise<Used[] | { problem: string; path: string }> {
    const from = wal.validEnd;
    const used: Used[] = [];
    for (const name of names) {
      const found = await this.#read(archive, name, segmentSize, wal);
      if (!found) return used;
      used.push(found);
      if (wal.validEnd > from) return used;
      const problem = found.problem ?? (found.mayEnd ? undefined : wal.fault?.message);
      if (problem !== undefined) return { problem, path: used[0]?.path ?? found.path };
      if (wal.fault) return used;
    }
    return used;
  }

  async #read(
    archive: Archive,
    name: string,
    segmentSize: number,
    wal: WalVerifier,
  ): Promise<Used | undefined> {
    const from = wal.validEnd;
    for (const one of [archive, ...this.#all.filter((other) => other !== archive)]) {
      try {
        return await one.segment(name, async (file) => {
          const { path, partial } = file;
          const { end, problem } = await file.read(
            segmentSize,
            (bytes) => wal.feed(bytes) === undefined && wal.validEnd === from,
          );
          const mayEnd = partial && wal.fault?.kind === 'zeros';
          return {
            archive: one,
            name,
            path,
            mayEnd,
            problem: end === 'damaged' ? problem : undefined,
          };
        });
      } catch (e) {
        if (isGone(e)) continue;
        if (!(e instanceof StorageError || e instanceof CorruptObjectError)) throw e;
        return { archive: one, name, path: pathOf(e, one), mayEnd: false, problem: e.message };
      }
    }
    return undefined;
  }

  async #headerOf(
    file: StoredSegment,
    name: string,
  ): Promise<{ segmentSize: number; systemId: bigint } | string> {
    const page = await readFirstPage((limit, take) => file.read(limit, take));
    const found = identifySegment(page, { name, systemId: await this.#systemId() });
    switch (found.state) {
      case 'this':
        return found.header;
      case 'foreign':
        return 'it is of another cluster';
      case 'another':
        return 'it is another segment than its name says';
      case 'unknown':
        return 'it does not begin with a WAL page';
    }
  }
}

function pathOf(error: Error, { place }: Archive): string {
  return (error as { path?: string }).path ?? place;
}

function bestFirst(a: Judged, b: Judged): number {
  if ((a.problem === undefined) !== (b.problem === undefined)) return a.problem ? 1 : -1;
  return a.validEnd === b.validEnd ? 0 : a.validEnd > b.validEnd ? -1 : 1;
}
