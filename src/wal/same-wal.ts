import { WalVerifier } from './verifier.js';
import type { WalOptions } from './walker.js';

/**
 * Compares two copies of the same WAL, fed in step. Bytes that are part of nothing (behind
 * XLOG_SWITCH above all, see WalWalker) are the same whatever they are: a server that is killed while
 * it fills a segment up sends other ones afterwards, and so does the standby that follows it.
 */
export class WalComparison {
  readonly #verifier: WalVerifier;

  /** @param from a verifier that stands where the copies begin, or what makes one */
  constructor(from: WalVerifier | WalOptions) {
    this.#verifier = from instanceof WalVerifier ? from : new WalVerifier(from);
  }

  /**
   * Takes the next bytes of both, as many as the shorter one has. Gives the index of the first one
   * in which they are other WAL; after that it is of no more use.
   */
  feed(a: Uint8Array, b: Uint8Array): number | undefined {
    const length = Math.min(a.length, b.length);
    for (let at = 0; at < length; ) {
      const same = firstDifference(a, b, at, length);
      this.#verifier.feed(a, at, same);
      if (same === length) break;
      const { unused } = this.#verifier;
      if (unused === 0) return same;
      at = Math.min(length, same + unused);
      this.#verifier.feed(a, same, at);
    }
    return undefined;
  }
}

/** Index in `[from, to)` of the first byte that differs, `to` if none does. */
export function firstDifference(a: Uint8Array, b: Uint8Array, from: number, to: number): number {
  let i = from;
  if (Buffer.compare(a.subarray(from, to), b.subarray(from, to)) === 0) return to;
  while (a[i] === b[i]) i += 1;
  return i;
}
