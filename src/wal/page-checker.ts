import { formatLsn, type Lsn } from '../lsn.js';
import type { Address } from './address.js';
import type { WalFaultKind } from './fault.js';
import {
  isSwappedMagic,
  isValidBlockSize,
  majorOfMagic,
  type PageHeader,
  XLP_ALL_FLAGS,
  XLP_BKP_REMOVABLE,
  XLP_FIRST_IS_CONTRECORD,
  XLP_FIRST_IS_OVERWRITE_CONTRECORD,
  XLP_LONG_HEADER,
} from './page.js';
import { type TimelineHistory, timelineAt } from './timeline.js';

/** A failed check; whoever knows the position makes a WalFault of it. */
export interface Failure {
  kind: WalFaultKind;
  message: string;
  expected?: string;
  actual?: string;
}

const hex = (n: number) => `0x${n.toString(16).toUpperCase().padStart(4, '0')}`;

const failure = (
  kind: WalFaultKind,
  message: string,
  expected: number | bigint | string,
  actual: number | bigint | string,
): Failure => ({ kind, message, expected: String(expected), actual: String(actual) });

/** What is known about the WAL before its first page is seen; all of it optional. */
export interface PageExpectations {
  segmentSize: number;
  blockSize?: number | undefined;
  /** Newest timeline the pages may be of (the one in the file's name). */
  timeline?: number | undefined;
  /** Given, each page must be of the timeline that owns its address. */
  history?: TimelineHistory | undefined;
  systemId?: bigint | undefined;
  /** xlp_magic of the run before; given, another one is a fault from the first page on. */
  magic?: number | undefined;
}

/**
 * Checks page headers against what is known and against the pages before: one magic, one cluster,
 * one block size a run, and the right timeline.
 */
export class PageChecker {
  /** XLOG_BLCKSZ; undefined until given or seen in a long header. */
  blockSize: number | undefined;
  /** xlp_magic of this run; 0 before the first page. */
  magic: number;
  systemId: bigint | undefined;
  /** Timeline of the last page; 0 before the first. */
  lastTimeline = 0;
  /** The one timeline that needs no closer look on the next page of this segment; 0 if none. */
  plainTimeline = 0;
  readonly #segmentSize: number;
  readonly #timeline: number | undefined;
  readonly #history: TimelineHistory | undefined;

  constructor(expected: PageExpectations) {
    this.blockSize = expected.blockSize;
    this.magic = expected.magic ?? 0;
    this.systemId = expected.systemId;
    this.#segmentSize = expected.segmentSize;
    this.#timeline = expected.timeline ?? expected.history?.timeline;
    this.#history = expected.history;
  }

  /**
   * True for the short header that almost every page has, without a look at its parts: what
   * {@link check} would accept, and no more. A check that is added there is added here. False proves
   * nothing.
   * @param words the header, from `w` on
   * @param due bytes of the record that must go on here, 0 if none does
   */
  isPlain(words: Int32Array, w: number, address: Address, due: number): boolean {
    const info = (words[w]! >>> 16) & ~XLP_BKP_REMOVABLE;
    return (
      this.plainTimeline !== 0 &&
      (words[w]! & 0xffff) === this.magic &&
      info === (due > 0 ? XLP_FIRST_IS_CONTRECORD : 0) &&
      words[w + 1]! >>> 0 === this.plainTimeline &&
      words[w + 2]! >>> 0 === address.lo &&
      words[w + 3]! >>> 0 === address.hi &&
      words[w + 4]! >>> 0 === due
    );
  }

  /**
   * @param remaining bytes of the record that must go on here; 0 if none does, undefined if
   *   nothing is known before this page
   * @param first true on the first page of a segment
   */
  check(
    page: PageHeader,
    address: Lsn,
    first: boolean,
    remaining: number | undefined,
  ): Failure | undefined {
    return (
      this.#checkMagic(page) ??
      this.#checkFlags(page, first) ??
      (page.long && this.#checkLong(page.long)) ??
      this.#checkAddress(page, address) ??
      this.#checkTimeline(page, address) ??
      checkContinuation(page, remaining)
    );
  }

  #checkMagic(page: PageHeader): Failure | undefined {
    if (page.magic === this.magic) return undefined;
    if (isSwappedMagic(page.magic)) {
      return failure(
        'byte-order',
        'WAL is of a server with another byte order (big-endian)',
        'little-endian',
        hex(page.magic),
      );
    }
    // Magics of all servers so far: 0xD0xx and 0xD1xx. Whatever else it is, it is not WAL.
    const plausible = page.magic >>> 12 === 0xd;
    if (this.magic !== 0 || !plausible) {
      const expected = this.magic === 0 ? '0xDxxx' : hex(this.magic);
      return failure('page-magic', 'invalid WAL page magic', expected, hex(page.magic));
    }
    this.magic = page.magic;
    return undefined;
  }

  #checkFlags(page: PageHeader, first: boolean): Failure | undefined {
    const known = majorOfMagic(page.magic) !== undefined;
    const long = (page.info & XLP_LONG_HEADER) !== 0;
    if ((known && (page.info & ~XLP_ALL_FLAGS) !== 0) || long !== first) {
      const expected = first ? 'a long header' : 'a short header';
      return failure('page-flags', 'invalid WAL page flags', expected, hex(page.info));
    }
    return undefined;
  }

  #checkLong(long: NonNullable<PageHeader['long']>): Failure | undefined {
    if (long.segmentSize !== this.#segmentSize) {
      const message = 'segment size in the WAL page header differs';
      return failure('segment-size', message, this.#segmentSize, long.segmentSize);
    }
    const blockSize =
      this.blockSize ?? (isValidBlockSize(long.blockSize) ? long.blockSize : 'a power of two');
    if (long.blockSize !== blockSize) {
      const message = 'block size in the WAL page header differs';
      return failure('block-size', message, blockSize, long.blockSize);
    }
    if (this.systemId !== undefined && long.systemId !== this.systemId) {
      const message = 'WAL is of another cluster: system identifier differs';
      return failure('system-identifier', message, this.systemId, long.systemId);
    }
    this.blockSize = blockSize;
    this.systemId = long.systemId;
    return undefined;
  }

  #checkAddress(page: PageHeader, address: Lsn): Failure | undefined {
    if (page.address === address) return undefined;
    const message = 'unexpected address in the WAL page header';
    return failure('page-address', message, formatLsn(address), formatLsn(page.address));
  }

  #checkTimeline(page: PageHeader, address: Lsn): Failure | undefined {
    const message = 'WAL page is of the wrong timeline';
    if (this.#history) {
      const owner = timelineAt(this.#history, address);
      if (page.timeline !== owner) {
        return failure('page-timeline', message, owner, page.timeline);
      }
      // Only a segment that holds a switch point needs the question again for each page.
      const last = address | BigInt(this.#segmentSize - 1);
      this.plainTimeline = timelineAt(this.#history, last) === owner ? owner : 0;
    } else {
      const oldest = Math.max(1, this.lastTimeline);
      const newest = this.#timeline ?? 0xffff_ffff;
      if (page.timeline < oldest || page.timeline > newest) {
        return failure('page-timeline', message, `${oldest} to ${newest}`, page.timeline);
      }
      this.plainTimeline = page.timeline;
    }
    this.lastTimeline = page.timeline;
    return undefined;
  }
}

/** xlp_rem_len and the two contrecord flags against the record in progress. */
function checkContinuation(page: PageHeader, remaining: number | undefined): Failure | undefined {
  const message = 'page does not continue the record before it';
  const overwrites = (page.info & XLP_FIRST_IS_OVERWRITE_CONTRECORD) !== 0;
  const continues = (page.info & XLP_FIRST_IS_CONTRECORD) !== 0;
  if (overwrites) {
    // A record that ended on the page before cannot have been lost in its middle.
    const sound = !continues && page.remaining === 0 && remaining !== 0;
    if (sound) return undefined;
    return failure('page-continuation', 'invalid overwrite flag in a page', 0, hex(page.info));
  }
  if (continues !== page.remaining > 0) {
    return failure('page-continuation', message, hex(page.info), page.remaining);
  }
  if (remaining !== undefined && remaining !== page.remaining) {
    return failure('page-continuation', message, remaining, page.remaining);
  }
  return undefined;
}
