import type { Lsn } from '../lsn.js';
import { type Address, joinLsn, splitLsn } from './address.js';
import { CRC_INIT, recordCrc, updateCrc } from './crc32c.js';
import type { WalFault } from './fault.js';
import { KERNEL, LAST_RECORD, loadKernel, type WalKernel } from './kernel.js';
import { type PageHeader, XLP_FIRST_IS_OVERWRITE_CONTRECORD } from './page.js';
import type { Failure, PageChecker, PageExpectations } from './page-checker.js';
import { PageCursor } from './page-cursor.js';
import { RECORD_HEADER_SIZE, type RecordVisitor, RM_XLOG, XLOG_SWITCH } from './record.js';
import {
  checkCrc,
  checkLength,
  checkOverwrite,
  checkPrev,
  isPlainHeader,
  OVERWRITE_BODY,
} from './record-checks.js';
import { firstNonZero } from './zeros.js';

/** Where WAL begins and what is known about it. */
export interface WalOptions extends PageExpectations {
  /**
   * LSN of the first byte fed: the start of a page, or of a record inside one. Where a page
   * begins with the rest of a record, that rest is skipped.
   */
  startLsn: Lsn;
  /** Start of the record before the first one, so that its xl_prev can be checked. */
  prev?: Lsn | undefined;
}

/** What the next byte is part of; from TAIL on, no record and no page is expected. */
const RECORD = 0; // a record header, or its first byte
const BODY = 1; // the rest of a record
const SKIP = 2; // the rest of a record that began before the start
const PAD = 3; // unused up to the next multiple of 8
const TAIL = 4; // unused from XLOG_SWITCH to the end of the segment
const ZEROS = 5; // a record or page should have been here, but zeros were
const FAILED = 6; // behind any other fault

/** xl_info and xl_rmid of XLOG_SWITCH as they lie in one word, with the mask for them. */
const SWITCH_WORD = (RM_XLOG << 8) | XLOG_SWITCH;
const KIND_MASK = 0xfff0;

/**
 * Walks over WAL in chunks of any size and checks all of it: page headers, record headers, the
 * chain of xl_prev, CRCs. It keeps no reference to a chunk and allocates nothing per record. The
 * first fault stays in `fault`; nothing behind it is judged.
 *
 * Some bytes are not judged, because PostgreSQL never reads them: see `unused`.
 *
 * LSNs are pairs of unsigned 32-bit halves here: a bigint for each of the millions of records of
 * a GB would cost as much as their CRCs. Pages and records that lie in one piece take short paths
 * that can only accept; what they do not accept, the long path looks at again and names the fault.
 */
export class WalWalker {
  fault: WalFault | undefined;
  /** With fault kind `zeros`: the first byte behind it that is not zero. */
  nonZero: Lsn | undefined;
  readonly #visitor: RecordVisitor | undefined;
  /** Where the kernel has the kinds that the visitor is asked about; undefined: it is about all. */
  readonly #kinds: number | undefined;
  readonly #start: Lsn;
  #fed = 0;
  /** Bytes fed before index 0 of the chunk in hand. */
  #base = 0;
  readonly #page: PageCursor;
  /** True until the first page header is there: what came before is unknown. */
  #fresh: boolean;
  #mode = RECORD;
  /** Bytes still to come in BODY, SKIP and TAIL. */
  #remaining = 0;
  readonly #record: Address = { hi: 0, lo: 0 };
  /** The record header, `#have` bytes of it. */
  readonly #header = new Uint8Array(RECORD_HEADER_SIZE);
  readonly #words = new Int32Array(this.#header.buffer);
  #have = 0;
  #crc = CRC_INIT;
  #prev: Address | undefined;
  readonly #startAlign: number;
  readonly #valid: Address;
  /** Set where a record was lost: its start (undefined: before our start). */
  #lost: { lsn: Lsn | undefined; body: Uint8Array; have: number } | undefined;
  /**
   * The record that goes on at the start may be an XLOG_SWITCH: so few bytes of it are to come, or
   * came and look like one. Then what follows is no record, unless it looks like one.
   */
  #mayEndSegment = false;
  /** True while the visitor takes the record in progress; it has been given one complete. */
  #taking = false;
  #given = false;

  /** @throws UsageError for a size or start that cannot be */
  constructor(options: WalOptions, visitor?: RecordVisitor) {
    const { startLsn, prev } = options;
    this.#visitor = visitor;
    const some = !visitor || visitor.kinds;
    this.#kinds = some ? loadKernel()?.addressOf(visitor?.kinds) : undefined;
    this.#start = startLsn;
    this.#startAlign = Number(startLsn & 3n);
    this.#page = new PageCursor(startLsn, options);
    this.#fresh = this.#page.at === 0;
    this.#valid = splitLsn(startLsn);
    if (prev !== undefined) this.#prev = splitLsn(prev);
  }

  /** What was learned from the page headers. */
  get pages(): PageChecker {
    return this.#page.checker;
  }

  /** LSN behind the last byte walked over. */
  get position(): Lsn {
    return (this.#start + BigInt(this.#fed)) as Lsn;
  }

  /** `position` modulo 4. */
  get alignment(): number {
    return (this.#startAlign + this.#fed) & 3;
  }

  /** End of the last complete good record, padding included; the start while there is none. */
  get validEnd(): Lsn {
    return joinLsn(this.#valid.hi, this.#valid.lo);
  }

  /** True while the rest of a record is passed over that began before the start. */
  get isSkipping(): boolean {
    return this.#mode === SKIP;
  }

  /**
   * So many of the next bytes are part of nothing: from XLOG_SWITCH to the end of the segment, to the
   * next multiple of 8 behind a record, or the last four of a page header. PostgreSQL writes zeros
   * there, but does not read them, and after a crash it leaves what it had not got to: behind
   * XLOG_SWITCH then lies what the recycled file held before.
   */
  get unused(): number {
    if (this.fault) return 0;
    if (this.#mode === TAIL) return this.#remaining;
    if (this.#page.headerSize > 0) return this.#page.headerPadding;
    return this.#mode === PAD ? -this.#page.at & 7 : 0;
  }

  /** True if the last byte was the end of a record, its padding, or the page header behind it. */
  get atBoundary(): boolean {
    if (this.fault || this.#lost || this.#fed === 0) return false;
    const between = this.#mode === RECORD && this.#have === 0;
    const wholePages = this.#page.headerSize === 0 || this.#page.at === 0;
    return this.#mode === TAIL || (between && wholePages);
  }

  /**
   * Walks over `bytes[from, to)`. `words` must view the same memory from the same first byte, and
   * an index be a multiple of 4 where its LSN is. Returns the place reached: `to`, or with a
   * visitor the end of the record that it was given.
   */
  walk(bytes: Uint8Array, words: Int32Array, from: number, to: number): number {
    let p = from;
    this.#given = false;
    this.#base = this.#fed - from;
    while (p < to && !this.#given) {
      if (this.#mode >= TAIL) p = this.#noRecords(bytes, words, p, to);
      else if (this.#page.at === this.#page.blockSize) this.#turnPage();
      else if (this.#page.headerSize > 0) p = this.#pageStart(bytes, words, p, to);
      else if (this.#mode === RECORD) p = this.#records(bytes, words, p, to);
      else if (this.#mode === PAD) p = this.#pad(p, to);
      else p = this.#body(bytes, words, p, to);
    }
    this.#fed = this.#base + p;
    return p;
  }

  #turnPage(): void {
    // A header that is cut here needs its length now: the next page has to agree with it.
    if (this.#mode === RECORD && this.#have > 0) {
      const failure = checkLength(this.#header, this.#have);
      if (failure) {
        this.#fail(failure, joinLsn(this.#record.hi, this.#record.lo));
        return;
      }
    }
    this.#page.turn();
  }

  /** Bytes of the record in progress that are still to come. */
  #due(): number {
    if (this.#mode === BODY || this.#mode === SKIP) return this.#remaining;
    return this.#have > 0 ? (this.#words[0]! >>> 0) - this.#have : 0;
  }

  #pageStart(bytes: Uint8Array, words: Int32Array, from: number, to: number): number {
    const page = this.#page;
    const due = this.#due();
    if (page.at === 0 && to - from >= page.headerSize && page.isPlain(words, from >> 2, due)) {
      return from + page.acceptHeader();
    }
    const n = page.collect(bytes, from, to);
    if (page.headerSize === 0) {
      const opened = page.open(this.#fresh ? undefined : due);
      if ('kind' in opened) this.#fail(opened, page.lsn);
      else this.#openPage(opened);
      this.#fresh = false;
    }
    return from + n;
  }

  #openPage(page: PageHeader): void {
    if ((page.info & XLP_FIRST_IS_OVERWRITE_CONTRECORD) !== 0) {
      const known = !this.#fresh && this.#mode !== SKIP;
      const lsn = known ? joinLsn(this.#record.hi, this.#record.lo) : undefined;
      this.#lost = { lsn, body: new Uint8Array(OVERWRITE_BODY), have: 0 };
      if (this.#taking) this.#visitor?.abandon();
      this.#taking = false;
      this.#mode = RECORD;
      this.#have = 0;
    } else if (this.#fresh && page.remaining > 0) {
      this.#mode = SKIP;
      this.#remaining = page.remaining;
      this.#prev = undefined;
      this.#mayEndSegment = page.remaining === 8 || page.remaining === 16;
    }
  }

  #records(bytes: Uint8Array, words: Int32Array, from: number, to: number): number {
    let p = from;
    if (this.#have === 0) {
      if (this.#prev && !this.#lost) {
        const kinds = this.#kinds;
        const kernel = bytes === KERNEL?.bytes && kinds !== undefined ? KERNEL : undefined;
        if (kernel) p = this.#kernelRecords(kernel, [from, to, kinds as number], this.#prev);
        // Where the kernel stopped, the record is perhaps one for the visitor.
        if (this.#visitor || !kernel) {
          p = this.#wholeRecords(bytes, words, [p, to, kernel ? 1 : to], this.#prev);
        }
        if (p > from) return p;
      }
      this.#record.hi = this.#page.address.hi;
      this.#record.lo = this.#page.address.lo + this.#page.at;
    }
    const size = RECORD_HEADER_SIZE;
    const n = Math.min(size - this.#have, to - p, this.#page.blockSize - this.#page.at);
    for (let i = 0; i < n; i++) this.#header[this.#have + i] = bytes[p + i]!;
    this.#have += n;
    this.#page.at += n;
    if (this.#have === size) this.#openRecord();
    return p + n;
  }

  /** Takes records as long as they are whole, good and nothing special, so many at most. */
  #wholeRecords(
    bytes: Uint8Array,
    words: Int32Array,
    [from, to, most]: readonly [number, number, number],
    prev: Address,
  ): number {
    const limit = Math.min(to, from + this.#page.blockSize - this.#page.at);
    const hi = this.#page.address.hi;
    const shift = this.#page.address.lo + this.#page.at - from;
    let prevHi = prev.hi | 0;
    let prevLo = prev.lo | 0;
    let p = from;
    for (let taken = 0; taken < most && limit - p >= RECORD_HEADER_SIZE; taken++) {
      const w = p >> 2;
      const length = words[w]!;
      const next = p + ((length + 7) & ~7);
      if (length < RECORD_HEADER_SIZE || length > limit - p || next > limit) break;
      if (words[w + 2] !== prevLo || words[w + 3] !== prevHi) break;
      const kind = words[w + 4]!;
      // Anything in the two zero bytes, or XLOG_SWITCH.
      if (kind >>> 16 !== 0 || (kind & KIND_MASK) === SWITCH_WORD) break;
      if (words[w + 5] !== recordCrc(bytes, words, p, length)) break;
      prevLo = (p + shift) | 0;
      prevHi = hi | 0;
      if (this.#visitor?.begin(bytes, p, hi, p + shift)) {
        this.#visitor.body(bytes, p + RECORD_HEADER_SIZE, p + length);
        this.#visitor.complete(joinLsn(hi, next + shift));
        this.#given = true;
        p = next;
        break;
      }
      p = next;
    }
    if (p > from) {
      prev.hi = prevHi >>> 0;
      prev.lo = prevLo >>> 0;
      this.#page.at += p - from;
      this.#valid.hi = hi;
      this.#valid.lo = p + shift;
    }
    return p;
  }

  /** The same in WebAssembly. */
  #kernelRecords(
    kernel: WalKernel,
    [from, to, kinds]: readonly [number, number, number],
    prev: Address,
  ): number {
    const limit = Math.min(to, from + this.#page.blockSize - this.#page.at);
    const { hi, lo } = this.#page.address;
    const shift = lo + this.#page.at - from;
    const at = [prev.lo | 0, prev.hi | 0, hi | 0, shift | 0] as const;
    const p = kernel.records(from, limit, ...at, kinds);
    if (p > from) {
      prev.hi = hi;
      prev.lo = (kernel.words[LAST_RECORD]! + shift) >>> 0;
      this.#page.at += p - from;
      this.#valid.hi = hi;
      this.#valid.lo = p + shift;
    }
    return p;
  }

  #openRecord(): void {
    const failure = isPlainHeader(this.#words, this.#prev)
      ? undefined
      : (checkLength(this.#header, this.#have) ??
        checkPrev(this.#header, this.#record, this.#prev));
    if (failure && this.#mayEndSegment) {
      this.#have = 0;
      this.#startTail();
      return;
    }
    if (failure) {
      this.#fail(failure, joinLsn(this.#record.hi, this.#record.lo));
      return;
    }
    this.#mayEndSegment = false;
    this.#crc = CRC_INIT;
    this.#remaining = this.#words[0]! - RECORD_HEADER_SIZE;
    this.#mode = BODY;
    const { hi, lo } = this.#record;
    this.#taking = this.#visitor?.begin(this.#header, 0, hi, lo) ?? false;
    if (this.#remaining === 0) this.#closeBody();
  }

  #body(bytes: Uint8Array, words: Int32Array, from: number, to: number): number {
    const n = Math.min(this.#remaining, to - from, this.#page.blockSize - this.#page.at);
    if (this.#mode === BODY) {
      this.#crc =
        bytes === KERNEL?.bytes
          ? KERNEL.crc(this.#crc, from, from + n)
          : updateCrc(this.#crc, bytes, words, from, from + n);
      if (this.#taking) this.#visitor?.body(bytes, from, from + n);
      const lost = this.#lost;
      for (let i = 0; lost && i < n && lost.have < OVERWRITE_BODY; i++) {
        lost.body[lost.have++] = bytes[from + i]!;
      }
    } else if (this.#mayEndSegment) {
      this.#header.set(bytes.subarray(from, from + n), RECORD_HEADER_SIZE - this.#remaining);
    }
    this.#page.at += n;
    this.#remaining -= n;
    if (this.#remaining === 0) this.#closeBody();
    return from + n;
  }

  #closeBody(): void {
    if (this.#mode === BODY) {
      const failure =
        checkCrc(this.#words, this.#crc) ??
        (this.#lost && checkOverwrite(this.#header, this.#lost.body, this.#lost.lsn));
      if (failure) {
        this.#fail(failure, joinLsn(this.#record.hi, this.#record.lo));
        return;
      }
    }
    this.#mode = PAD;
    if (this.#page.at % 8 === 0) this.#closeRecord();
  }

  #pad(from: number, to: number): number {
    const n = Math.min(to - from, -this.#page.at & 7);
    this.#page.at += n;
    if (this.#page.at % 8 === 0) this.#closeRecord();
    return from + n;
  }

  #closeRecord(): void {
    this.#mode = RECORD;
    if (this.#have === 0) {
      this.#mayEndSegment &&= (this.#words[4]! & ~0xf) === SWITCH_WORD;
      return;
    }
    this.#have = 0;
    this.#lost = undefined;
    this.#prev ??= { hi: 0, lo: 0 };
    this.#prev.hi = this.#record.hi;
    this.#prev.lo = this.#record.lo;
    this.#valid.hi = this.#page.address.hi;
    this.#valid.lo = this.#page.address.lo + this.#page.at;
    const { hi, lo } = this.#valid;
    let end = lo;
    if ((this.#words[4]! & KIND_MASK) === SWITCH_WORD) {
      this.#startTail();
      end += this.#remaining;
    }
    if (this.#taking) this.#visitor?.complete(joinLsn(hi, end));
    this.#given = this.#taking;
    this.#taking = false;
  }

  /** Nothing up to the end of the segment is part of anything. */
  #startTail(): void {
    this.#remaining = -(this.#page.address.lo + this.#page.at) & (this.#page.segmentSize - 1);
    if (this.#remaining > 0) this.#mode = TAIL;
  }

  /** Passes over bytes that do not matter (TAIL, FAILED), or are asked if they all are zero. */
  #noRecords(bytes: Uint8Array, words: Int32Array, from: number, to: number): number {
    if (this.#mode === TAIL) {
      const n = Math.min(to - from, this.#remaining);
      this.#remaining -= n;
      if (this.#remaining === 0) this.#closeTail(this.#lsnOf(from + n));
      return from + n;
    }
    if (this.#mode === ZEROS && this.nonZero === undefined) {
      const p = firstNonZero(bytes, words, from, to);
      if (p < to) this.nonZero = this.#lsnOf(p);
    }
    return to;
  }

  #closeTail(end: Lsn): void {
    this.#mode = RECORD;
    Object.assign(this.#valid, splitLsn(end));
    this.#page.jumpTo(end);
  }

  #lsnOf(index: number): Lsn {
    return (this.#start + BigInt(this.#base + index)) as Lsn;
  }

  #fail(failure: Failure, lsn: Lsn): void {
    this.fault = { ...failure, lsn, validEnd: this.validEnd };
    this.#mode = failure.kind === 'zeros' ? ZEROS : FAILED;
  }
}
