import type { Lsn } from '../lsn.js';
import {
  aBigint,
  aFunction,
  aNumber,
  anLsn,
  anObject,
  aSwitch,
  aTimeline,
  type Checks,
  checkOptions,
  required,
} from '../options.js';
import { type Chunk, copyChunk } from './chunk.js';
import { faultToError, type WalEnd, type WalFault } from './fault.js';
import { MAX_SEGMENT_SIZE, MIN_SEGMENT_SIZE } from './file-name.js';
import { majorOfMagic } from './page.js';
import type { WalRecord } from './record.js';
import { RecordCollector } from './record-collector.js';
import { describeEnd } from './verifier.js';
import { type WalOptions, WalWalker } from './walker.js';

/** Longest record that is put together in memory unless `maxRecord` says otherwise, bytes. */
export const DEFAULT_MAX_RECORD = 64 * 1024 * 1024;

export interface WalDecoderOptions extends WalOptions {
  /** Records longer than this are checked and returned without a body. */
  maxRecord?: number;
  /**
   * Which records to return, by xl_rmid and xl_info; all by default. The others are checked
   * all the same, at the speed of WalVerifier.
   */
  select?: (rmgr: number, info: number) => boolean;
  /**
   * The bytes may end anywhere, as those of a `.partial` file do: where the WAL ends `next`
   * returns undefined, and `end` tells how it ends, instead of an error.
   */
  partial?: boolean;
}

const CHECKS: Checks<WalDecoderOptions> = {
  startLsn: required(anLsn),
  prev: anLsn,
  segmentSize: required(aNumber(MIN_SEGMENT_SIZE, MAX_SEGMENT_SIZE)),
  blockSize: aNumber(1024, 65536),
  timeline: aTimeline,
  history: anObject,
  systemId: aBigint,
  magic: aNumber(0, 0xffff),
  maxRecord: aNumber(0, Number.MAX_SAFE_INTEGER),
  select: aFunction,
  partial: aSwitch,
};

/**
 * Makes records of WAL bytes:
 * ```
 * decoder.feed(chunk);
 * for (let r = decoder.next(); r; r = decoder.next()) …
 * ```
 * Checks what WalVerifier checks. Memory is bounded by the chunk fed and the longest record.
 */
export class WalDecoder {
  readonly #walker: WalWalker;
  readonly #collector: RecordCollector;
  readonly #partial: boolean;
  /** Bytes fed and not walked over yet. */
  readonly #chunks: Chunk[] = [];
  /** Walked over: its memory is for the next one. */
  #spare: Chunk | undefined;
  #fedEnd: bigint;

  /** @throws UsageError */
  constructor(options: WalDecoderOptions) {
    checkOptions('WalDecoder', options, CHECKS);
    this.#collector = new RecordCollector(options.maxRecord ?? DEFAULT_MAX_RECORD, options.select);
    this.#walker = new WalWalker(options, this.#collector);
    this.#fedEnd = options.startLsn;
    this.#partial = options.partial ?? false;
  }

  /** Adds the next bytes; they are copied. */
  feed(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.#chunks.push(copyChunk(bytes, this.#fedEnd, this.#spare));
    this.#spare = undefined;
    this.#fedEnd += BigInt(bytes.length);
  }

  /**
   * The next record; undefined when more bytes are needed.
   * @throws CorruptWalError, SystemIdentifierError or NotSupportedError (foreign byte order) where
   *   the WAL is not good, again at each further call
   */
  next(): WalRecord | undefined {
    let chunk = this.#chunks[0];
    while (chunk) {
      chunk.from = this.#walker.walk(chunk.bytes, chunk.words, chunk.from, chunk.to);
      if (chunk.from === chunk.to) this.#spare = this.#chunks.shift();
      const record = this.#collector.take();
      if (record) return record;
      chunk = this.#chunks[0];
    }
    if (this.#walker.fault && !this.#partial) throw faultToError(this.#walker.fault);
    return undefined;
  }

  /** LSN behind the last byte that `next` has looked at. */
  get position(): Lsn {
    return this.#walker.position;
  }

  /** End of the last complete good record. */
  get validEnd(): Lsn {
    return this.#walker.validEnd;
  }

  get fault(): WalFault | undefined {
    return this.#walker.fault;
  }

  /** System identifier from the long page headers, or the one given; undefined before. */
  get systemId(): bigint | undefined {
    return this.#walker.pages.systemId;
  }

  /** Major version of the server that wrote the WAL; undefined before a page, or if unknown. */
  get serverMajor(): number | undefined {
    return majorOfMagic(this.#walker.pages.magic);
  }

  /** How what was fed ends; to be asked after `next` has returned undefined. */
  end(): WalEnd {
    return describeEnd(this.#walker);
  }
}
