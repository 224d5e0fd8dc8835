import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { LEDGER_FILE } from '../../archive/ledger.js';
import { abortableDelay } from '../../delay.js';
import { InternalError, WalkeepError } from '../../errors.js';
import { storageError, writeFileDurably } from '../../files/durable.js';
import { parseStoredName } from '../../wal/file-name.js';
import type { Backfill } from './backfill.js';
import { type OtherArchive, type OtherWal, segmentOnWay, type Way } from './other-archive.js';

/** Milliseconds between looks for holes. */
const INTERVAL = 600_000;
/**
 * Milliseconds before one that could not be asked, or has not what both must have, is asked again:
 * doubling, up to the longest, or to the interval.
 */
const FIRST = 1000;
const LONGEST = 60_000;

/** Segments after which others get their turn: acknowledgements wait for this thread. */
const PAUSE = 1000n;

/** There while WAL from before the archive's own begin is to be brought. */
const BEGUN_EMPTY = '.walkeep-backfill-older';

/** Segments in a row that are missing, between or before those that are here. */
interface Hole {
  /** The lowest; undefined: as far down as there is anything. */
  from: bigint | undefined;
  to: bigint;
}

/** `waits`: for a segment that both have, which proves that they are one archive. */
type Filled = 'done' | 'waits' | 'failed';

/**
 * Notes, before anything is received, that a directory begins with nothing: what other archives have
 * from before that is wanted as well. Later it cannot be told from what a cleanup has removed.
 * @throws StorageError
 */
export async function noteEmpty(directory: string): Promise<void> {
  const names = await readdir(directory).catch((e) => {
    throw storageError('open directory', directory, e);
  });
  const begun = names.some(
    (name) => name === LEDGER_FILE || parseStoredName(name)?.kind === 'segment',
  );
  if (begun) return;
  const path = join(directory, BEGUN_EMPTY);
  await writeFileDurably(path, '', { mode: 0o600, temporary: `${path}.tmp` });
}

/**
 * Fills what is missing inside an archive, and before it where it began empty, from other archives of
 * the cluster, while the receiver is at work: no acknowledgement waits for it. From the newest segment
 * to the oldest, so that what is here has no hole that it had not before.
 */
export class Filler {
  readonly #backfill: Backfill;
  readonly #interval: number;
  readonly #fail: (error: unknown) => void;
  readonly #stop = new AbortController();
  #hurry = new AbortController();
  #way: Way | undefined;
  #running = Promise.resolve();

  /** @param fail told of a defect, and of a disk that failed */
  constructor(
    backfill: Backfill,
    { interval = INTERVAL }: { interval?: number | undefined },
    fail: (error: unknown) => void,
  ) {
    this.#backfill = backfill;
    this.#interval = interval;
    this.#fail = fail;
  }

  /** A stream begins: whose WAL is wanted is known. */
  follow(way: Way): void {
    const first = this.#way === undefined;
    this.#way = way;
    if (first) this.#running = this.#run().catch(this.#fail);
    else this.#now();
  }

  async end(): Promise<void> {
    this.#stop.abort();
    this.#now();
    await this.#backfill.close();
    await this.#running;
  }

  #now(): void {
    this.#hurry.abort();
    this.#hurry = new AbortController();
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    for (let tries = 0; !signal.aborted; ) {
      const hurry = this.#hurry.signal;
      let filled: Filled;
      try {
        filled = await this.#fill(this.#way as Way);
      } catch (e) {
        if (signal.aborted) return;
        // A listener's defect, say.
        if (!(e instanceof WalkeepError) || e instanceof InternalError) throw e;
        filled = 'failed';
      }
      tries = filled === 'done' ? 0 : tries + 1;
      const longest = filled === 'failed' ? LONGEST : this.#interval;
      const backoff = Math.min(longest, FIRST * 2 ** Math.min(tries - 1, 20));
      await abortableDelay(filled === 'done' ? this.#interval : backoff, hurry);
    }
  }

  /** Looks once for what is missing, and takes what of it is to be had. */
  async #fill(way: Way): Promise<Filled> {
    // Sorted as numbers: as bigints a large archive's would take too long at a stretch.
    const numbers = Float64Array.from(await this.#backfill.own(way), Number).sort();
    const holes: Hole[] = [];
    for (let i = numbers.length - 1; i > 0; i--) {
      const [before, n] = [numbers[i - 1] as number, numbers[i] as number];
      if (before < n - 1) holes.push({ from: BigInt(before + 1), to: BigInt(n - 1) });
    }
    const { directory, others } = this.#backfill;
    const older = (await readdir(directory)).includes(BEGUN_EMPTY);
    const [oldest] = numbers;
    if (older && oldest === undefined) return 'waits';
    if (older) holes.push({ from: undefined, to: BigInt(oldest as number) - 1n });
    if (holes.length === 0) return 'done';
    holes.reverse();
    const all: Filled[] = [];
    for (const other of others) {
      const found = await this.#backfill.look(other, way);
      if (found.state === 'failed') all.push(found.refused ? 'waits' : 'failed');
      // What one that is yet to begin does not have says nothing of what was there.
      else if (!found.wal.begun) all.push('waits');
      else for (const hole of holes) all.push(await this.#fillHole(hole, other, found.wal, way));
    }
    const filled = all.includes('failed') ? 'failed' : all.includes('waits') ? 'waits' : 'done';
    if (filled === 'done' && older) await rm(join(directory, BEGUN_EMPTY), { force: true });
    return filled;
  }

  /** From above, where what both have is compared first. */
  async #fillHole(
    { from, to }: Hole,
    other: OtherArchive,
    wal: OtherWal,
    way: Way,
  ): Promise<Filled> {
    const above = segmentOnWay(way, to + 1n);
    if (!wal.has(above)) return 'waits';
    const take = (n: bigint) => this.#backfill.take(other, way, segmentOnWay(way, n));
    const joint = await take(to + 1n);
    if (joint === 'absent' || joint === 'stored') return 'waits';
    if (joint !== 'present') return 'failed';
    for (let n = to; n >= (from ?? 1n); n -= 1n) {
      if (this.#stop.signal.aborted) return 'waits';
      if (n % PAUSE === 0n) await setImmediate();
      if (!wal.has(segmentOnWay(way, n))) {
        if (from === undefined) break;
        // It may have a hole there as well.
        continue;
      }
      const how = await take(n);
      // What is damaged there ends it: what lies before leads to nothing.
      if (how === 'later' || how === 'refused') return 'failed';
    }
    return 'done';
  }
}
