import { join } from 'node:path';
import type { Finding } from '../archive/findings.js';
import { segmentBytes } from '../archive/segment-reader.js';
import { isGone } from '../archive/segment-source.js';
import { readLockHolder } from '../files/lock.js';
import { formatLsn, type Lsn } from '../lsn.js';
import { parseSegmentFileName, type SegmentName } from '../wal/file-name.js';
import { WalComparison } from '../wal/same-wal.js';

interface Original extends SegmentName {
  name: string;
  path: string;
  /** LSN of its first byte. */
  start: Lsn;
}

/**
 * Compares a further file of a segment with the one that was checked. Of a partial what counts is
 * what was written: zeros at its end are no content. Undefined if the other file is gone.
 * @throws StorageError if a file cannot be read
 */
export async function compareCopies(
  directory: string,
  original: Original,
  name: string,
  segmentSize: number,
): Promise<Finding | undefined> {
  const other = parseSegmentFileName(name, segmentSize);
  if (!other || name === original.name) return undefined;
  const path = join(directory, name);
  const difference = await firstDifference(
    new Pieces(segmentBytes(original.path, original.compression, segmentSize), original.partial),
    new Pieces(segmentBytes(path, other.compression, segmentSize), other.partial),
    new WalComparison({ startLsn: original.start, segmentSize }),
  ).catch((e) => {
    if (isGone(e, path)) return 'gone';
    throw e;
  });
  if (difference === 'gone') return undefined;
  if (difference === 'more') {
    // Of a receiver at work that is as it should be.
    const atWork = (await readLockHolder(directory))?.state === 'alive';
    return {
      severity: atWork ? 'info' : 'warning',
      code: 'duplicate',
      file: name,
      message: `the same WAL as in ${original.name}, and more behind it`,
      hint: 'A receiver went on with it: check again, the one that holds more is read then.',
    };
  }
  if (difference === undefined) {
    return {
      severity: 'info',
      code: 'duplicate',
      file: name,
      message: `the same WAL as in ${original.name}`,
      hint: `"${name}" can be removed while no receiver runs.`,
    };
  }
  const lsn = (original.start + BigInt(difference)) as Lsn;
  return {
    severity: 'error',
    code: 'duplicate-differs',
    file: name,
    lsn,
    message: `other bytes than in ${original.name} from ${formatLsn(lsn)} on`,
    hint: 'Find out which one is right, by checking each alone, and move the other one away.',
  };
}

/**
 * Offset of the first byte that is other WAL; undefined if `b` holds what `a` does, or less; `more` if
 * it goes on where `a` ends.
 */
async function firstDifference(
  a: Pieces,
  b: Pieces,
  comparison: WalComparison,
): Promise<number | 'more' | undefined> {
  try {
    for (let offset = 0; ; ) {
      const x = await a.peek();
      const y = await b.peek();
      if (!x && !y) return undefined;
      const n = Math.min(x?.length ?? 0, y?.length ?? 0);
      const same = x && y ? (comparison.feed(x, y) ?? n) : 0;
      a.skip(same);
      b.skip(same);
      offset += same;
      if (same > 0 && same === n) continue;
      if (await b.isOver()) return undefined;
      return (await a.isOver()) ? 'more' : offset;
    }
  } finally {
    await a.close();
    await b.close();
  }
}

/** The content of a file, of which any part may be taken. */
class Pieces {
  readonly #source: AsyncIterator<Uint8Array>;
  readonly #partial: boolean;
  #rest: Uint8Array | undefined;
  #ended = false;

  constructor(source: AsyncIterable<Uint8Array>, partial: boolean) {
    this.#source = source[Symbol.asyncIterator]();
    this.#partial = partial;
  }

  /** What is there of the next chunk; undefined at the end. */
  async peek(): Promise<Uint8Array | undefined> {
    while (!this.#ended && !this.#rest?.length) {
      const next = await this.#source.next();
      this.#ended = next.done === true;
      this.#rest = next.done ? undefined : next.value;
    }
    return this.#rest;
  }

  skip(bytes: number): void {
    this.#rest = this.#rest?.subarray(bytes);
  }

  /** True if nothing but the padding of a partial file is left. */
  async isOver(): Promise<boolean> {
    if (!this.#partial) return false;
    for (let bytes = await this.peek(); bytes; bytes = await this.peek()) {
      if (bytes.some((byte) => byte !== 0)) return false;
      this.skip(bytes.length);
    }
    return true;
  }

  async close(): Promise<void> {
    await this.#source.return?.();
  }
}
