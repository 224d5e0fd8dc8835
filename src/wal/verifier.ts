import type { Lsn } from '../lsn.js';
import { readChunk } from './chunk.js';
import { faultToError, type WalEnd, type WalFault } from './fault.js';
import { majorOfMagic } from './page.js';
import type { RecordVisitor } from './record.js';
import { type WalOptions, WalWalker } from './walker.js';

/**
 * Checks WAL as it comes, without making records of it: fast enough to stand in the way of the
 * data. A chunk is not kept, and a record of any length needs no memory.
 */
export class WalVerifier {
  readonly #walker: WalWalker;

  /** @param visitor is given records, at the speed of the rest if it names their managers */
  constructor(options: WalOptions, visitor?: RecordVisitor) {
    this.#walker = new WalWalker(options, visitor);
  }

  /**
   * Checks the next bytes, `chunk[start, end)`. Returns the fault if there is one by now: it is
   * the first one, and what is fed behind it is only counted.
   */
  feed(chunk: Uint8Array, start = 0, end = chunk.length): WalFault | undefined {
    readChunk(chunk, start, end, this.#walker.alignment, this.#walk);
    return this.#walker.fault;
  }

  readonly #walk = (bytes: Uint8Array, words: Int32Array, from: number, to: number) => {
    // Each record that the visitor was given ends a walk.
    for (let at = from; at < to; ) at = this.#walker.walk(bytes, words, at, to);
  };

  /** LSN behind the last byte fed. */
  get position(): Lsn {
    return this.#walker.position;
  }

  /**
   * Up to here nothing is known to be bad: `position`, or once something failed the end of the
   * last good record before it. An incomplete tail counts as not bad.
   */
  get verifiedEnd(): Lsn {
    return this.#walker.fault?.validEnd ?? this.#walker.position;
  }

  /** Up to here everything is known to be good: the end of the last complete record. */
  get validEnd(): Lsn {
    return this.#walker.validEnd;
  }

  /** True while the rest of a record is passed over that began before the start. */
  get isSkipping(): boolean {
    return this.#walker.isSkipping;
  }

  /** So many of the next bytes are part of nothing, and may be anything: see WalWalker. */
  get unused(): number {
    return this.#walker.unused;
  }

  get fault(): WalFault | undefined {
    return this.#walker.fault;
  }

  /** System identifier from the long page headers, or the one given; undefined before. */
  get systemId(): bigint | undefined {
    return this.#walker.pages.systemId;
  }

  /** xlp_magic of this run; undefined before the first page. */
  get magic(): number | undefined {
    return this.#walker.pages.magic || undefined;
  }

  /**
   * True once pages with a magic of no known server were seen (a newer major, a fork): warn of
   * it. Flags that such a server may have added are not judged, all else is.
   */
  get unknownMagic(): boolean {
    return this.magic !== undefined && majorOfMagic(this.magic) === undefined;
  }

  /** How what was fed ends; for a partial file after its last byte. */
  end(): WalEnd {
    return describeEnd(this.#walker);
  }

  /** @throws CorruptWalError, or the like, if there is a fault */
  assertSound(): void {
    if (this.#walker.fault) throw faultToError(this.#walker.fault);
  }
}

/** The end of a walk, as WalVerifier and WalDecoder report it. */
export function describeEnd(walker: WalWalker): WalEnd {
  const { fault, nonZero, validEnd: lsn } = walker;
  if (!fault) return { kind: walker.atBoundary ? 'boundary' : 'torn', lsn };
  if (fault.kind !== 'zeros') return { kind: 'damaged', lsn, fault };
  if (nonZero === undefined) return { kind: 'zeros', lsn, fault };
  return { kind: 'damaged', lsn, fault, nonZero };
}
