import type { Lsn } from '../lsn.js';
import { hasPageChecksum, isNewPage } from './page.js';

/** A page whose checksum is wrong. */
export interface BadPage {
  /** Below the data directory. */
  path: string;
  /** Within the fork, over all its files. */
  block: number;
  /** The file is an incremental one. */
  incremental: boolean;
}

export interface PageCheckOptions {
  /**
   * Of the backup. A page that was changed later may have been read while it was written: the WAL
   * that the backup needs has it whole.
   */
  start: Lsn;
  /** Bytes of a page, and pages of a file of a relation. */
  blockSize?: number | undefined;
  segmentBlocks?: number | undefined;
}

/** Of PostgreSQL as it is built unless somebody says otherwise. */
export const BLOCK_SIZE = 8192;
export const SEGMENT_BLOCKS = 131_072;
/** Pages that are named one by one. */
const MOST_NAMED = 1000;

/** In one message. */
const TOLD = 5;

/** A file of a relation, also of one that is incremental; names of all others are no numbers. */
const RELATION =
  /^(?:(?:base\/\d+|global|pg_tblspc\/\d+\/PG_\d+_\d+\/\d+)\/)(INCREMENTAL\.)?\d+(?:_(?:fsm|vm|init))?(?:\.(\d+))?$/;
const INCREMENTAL_MAGIC = 0xd3ae1f0d;

/** Looks at the checksums of the pages of a base backup, whose files come one after the other. */
export class PageCheck {
  /** At most a thousand; `wrong` counts all. */
  readonly bad: BadPage[] = [];
  wrong = 0;
  /** Pages that were looked at. */
  looked = 0;
  readonly #start: Lsn;
  readonly #segmentBlocks: number;
  /** Where its words can be read, as they cannot in what comes. */
  readonly #page: Uint8Array;
  #filled = 0;
  #path: string | undefined;
  /** Of the next page of a plain file. */
  #block = 0;
  #numbers: IncrementalBlocks | undefined;

  constructor({ start, blockSize = BLOCK_SIZE, segmentBlocks = SEGMENT_BLOCKS }: PageCheckOptions) {
    this.#start = start;
    this.#segmentBlocks = segmentBlocks;
    this.#page = new Uint8Array(new ArrayBuffer(blockSize));
  }

  begin(path: string): void {
    const [found, incremental, segment] = RELATION.exec(path) ?? [];
    this.#path = found;
    this.#filled = 0;
    this.#block = Number(segment ?? 0) * this.#segmentBlocks;
    this.#numbers = incremental === undefined ? undefined : new IncrementalBlocks(this.#block);
  }

  content(piece: Uint8Array): void {
    if (this.#path === undefined) return;
    const page = this.#page;
    for (let at = 0; at < piece.length; ) {
      const n = Math.min(piece.length - at, page.length - this.#filled);
      page.set(piece.subarray(at, at + n), this.#filled);
      at += n;
      this.#filled += n;
      if (this.#filled < page.length) break;
      this.#filled = 0;
      const block = this.#numbers ? this.#numbers.take(page) : this.#block++;
      if (block !== undefined) this.#look(page, block);
    }
  }

  #look(page: Uint8Array, block: number): void {
    this.looked += 1;
    if (isNewPage(page) || hasPageChecksum(page, block) || lsnOf(page) > this.#start) return;
    this.wrong += 1;
    const path = this.#path as string;
    const incremental = this.#numbers !== undefined;
    if (this.bad.length < MOST_NAMED) this.bad.push({ path, block, incremental });
  }
}

/** Names some of them. @param wrong how many there are */
export function pagesText(bad: readonly BadPage[], wrong: number): string {
  const named = bad.slice(0, TOLD).map(({ path, block }) => `block ${block} of "${path}"`);
  const more = wrong > named.length ? `, and ${wrong - named.length} more` : '';
  const what = wrong === 1 ? '1 page has a wrong checksum' : `${wrong} pages have wrong checksums`;
  return `${what}: ${named.join(', ')}${more}`;
}

/** Two words, the higher one first (storage/bufpage.h, PageXLogRecPtr). */
export function lsnOf(page: Uint8Array): Lsn {
  const view = new DataView(page.buffer, page.byteOffset, 8);
  return ((BigInt(view.getUint32(0, true)) << 32n) | BigInt(view.getUint32(4, true))) as Lsn;
}

/** The numbers of the pages in an incremental file, from its header, which fills whole pages. */
class IncrementalBlocks {
  readonly #first: number;
  readonly #numbers: number[] = [];
  #count: number | undefined;
  #next = 0;

  constructor(first: number) {
    this.#first = first;
  }

  /** The number of this page; undefined for one of the header. */
  take(page: Uint8Array): number | undefined {
    const view = new DataView(page.buffer, page.byteOffset, page.length);
    let at = 0;
    if (this.#count === undefined) {
      this.#count = view.getUint32(0, true) === INCREMENTAL_MAGIC ? view.getUint32(4, true) : 0;
      at = 12;
    } else if (this.#numbers.length === this.#count) {
      const number = this.#numbers[this.#next++];
      return number === undefined ? undefined : this.#first + number;
    }
    for (; at < page.length && this.#numbers.length < this.#count; at += 4) {
      this.#numbers.push(view.getUint32(at, true));
    }
    return undefined;
  }
}
