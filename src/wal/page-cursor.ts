import { NotSupportedError, UsageError } from '../errors.js';
import { formatLsn, type Lsn } from '../lsn.js';
import { type Address, advance, joinLsn, splitLsn } from './address.js';
import { LITTLE_ENDIAN_HOST } from './crc32c.js';
import { isValidSegmentSize } from './file-name.js';
import {
  DEFAULT_BLOCK_SIZE,
  HEADER_END,
  isValidBlockSize,
  LONG_PAGE_HEADER,
  type PageHeader,
  parsePageHeader,
  SHORT_PAGE_HEADER,
} from './page.js';
import { type Failure, PageChecker, type PageExpectations } from './page-checker.js';

/** Where a walk is: the page, the offset in it, and its header while that is collected. */
export class PageCursor {
  readonly checker: PageChecker;
  readonly segmentSize: number;
  blockSize: number;
  /** Of the page's first byte. */
  readonly address: Address;
  /** Offset in the page of the next byte. */
  at: number;
  /** Size of the page header while it is being collected, otherwise 0. */
  headerSize = 0;
  readonly #header = new Uint8Array(LONG_PAGE_HEADER);

  /** @throws UsageError for sizes or a start that cannot be */
  constructor(startLsn: Lsn, options: PageExpectations) {
    if (!LITTLE_ENDIAN_HOST) throw new NotSupportedError('WAL is not read on big-endian machines');
    const { segmentSize, blockSize } = options;
    if (!isValidSegmentSize(segmentSize)) {
      throw new UsageError(`not a WAL segment size: ${segmentSize}`);
    }
    if (blockSize !== undefined && !isValidBlockSize(blockSize)) {
      throw new UsageError(`not a WAL block size: ${blockSize}`);
    }
    this.checker = new PageChecker(options);
    this.segmentSize = segmentSize;
    this.blockSize = blockSize ?? DEFAULT_BLOCK_SIZE;
    this.address = splitLsn(startLsn);
    this.at = this.address.lo & (this.blockSize - 1);
    this.address.lo -= this.at;
    const headerSize = this.#sizeOfHeader();
    if (this.at === 0) this.headerSize = headerSize;
    else if (this.at < headerSize || this.at % 8 !== 0) {
      throw new UsageError(`no WAL record can begin at ${formatLsn(startLsn)}`);
    }
  }

  /** LSN of the page. */
  get lsn(): Lsn {
    return joinLsn(this.address.hi, this.address.lo);
  }

  #sizeOfHeader(): number {
    const first = (this.address.lo & (this.segmentSize - 1)) === 0;
    return first ? LONG_PAGE_HEADER : SHORT_PAGE_HEADER;
  }

  /** Goes from the end of the page to the next one. */
  turn(): void {
    advance(this.address, this.blockSize);
    this.at = 0;
    this.headerSize = this.#sizeOfHeader();
  }

  /** Goes to the end of the page that ends at `lsn`. */
  jumpTo(lsn: Lsn): void {
    Object.assign(this.address, splitLsn(lsn - BigInt(this.blockSize)));
    this.at = this.blockSize;
  }

  /** True if all of a header lies in `words` from `w` on, and it needs no closer look. */
  isPlain(words: Int32Array, w: number, due: number): boolean {
    return (
      this.headerSize === SHORT_PAGE_HEADER && this.checker.isPlain(words, w, this.address, due)
    );
  }

  /** So many of the next bytes are the padding of the header that is being collected. */
  get headerPadding(): number {
    return this.at >= HEADER_END && this.at < SHORT_PAGE_HEADER ? SHORT_PAGE_HEADER - this.at : 0;
  }

  /** Steps behind a plain header. */
  acceptHeader(): number {
    const size = this.headerSize;
    this.at = size;
    this.headerSize = 0;
    return size;
  }

  /** Takes the next bytes of the header; returns how many. `headerSize` is 0 when it is whole. */
  collect(bytes: Uint8Array, from: number, to: number): number {
    const n = Math.min(this.headerSize - this.at, to - from);
    for (let i = 0; i < n; i++) this.#header[this.at + i] = bytes[from + i]!;
    this.at += n;
    if (this.at === this.headerSize) this.headerSize = 0;
    return n;
  }

  /**
   * Checks the header that was collected. `due`: bytes of the record that must go on here, 0 if none
   * does; undefined if nothing is known before this page, the first.
   */
  open(due: number | undefined): PageHeader | Failure {
    const header = this.#header.subarray(0, this.at);
    if (header.every((b) => b === 0)) return { kind: 'zeros', message: 'no WAL page but zeros' };
    const page = parsePageHeader(header);
    const first = this.at === LONG_PAGE_HEADER;
    const failure = this.checker.check(page, this.lsn, first, due);
    if (failure) return failure;
    if (due === undefined) this.blockSize = this.checker.blockSize ?? this.blockSize;
    return page;
  }
}
