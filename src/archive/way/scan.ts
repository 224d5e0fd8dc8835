import type { WalkeepError } from '../../errors.js';
import { formatLsn, type Lsn } from '../../lsn.js';
import { WalDecoder } from '../../wal/decoder.js';
import { faultScope, type WalFault } from '../../wal/fault.js';
import { parseLongHeader } from '../../wal/long-header.js';
import { DEFAULT_BLOCK_SIZE } from '../../wal/page.js';
import type { WalRecord } from '../../wal/record.js';
import type { TimelineHistory } from '../../wal/timeline.js';

/** A place of the archive that could not be read, or is not there. */
export interface Damage {
  kind: 'damage';
  /** The place itself. */
  lsn: Lsn;
  /** Up to here everything before it was read. */
  from: Lsn;
  /** Where reading goes on; undefined if nothing behind it was readable. */
  resumedAt?: Lsn;
  message: string;
}

/** Why a place could not be read, where that is not that the WAL there is damaged. */
export type Unread = 'missing' | WalkeepError;

/** Takes what is found; true: that was enough. */
export interface ScanVisitor {
  record(record: WalRecord, major: number | undefined): boolean;
  damage(damage: Damage, why?: Unread): boolean;
}

export interface ScanOptions {
  segmentSize: number;
  systemId?: bigint | undefined;
  history?: TimelineHistory | undefined;
  timeline: number;
  select(rmgr: number, info: number): boolean;
  /** Enough is read once a record ends behind here. */
  until?: Lsn | undefined;
}

/** Pieces are cut at this boundary, which is one of pages of any size. */
const PIECE = 65_536;
const ZEROS = new Uint8Array(PIECE);

/**
 * Decodes the WAL of one way through an archive. Behind a damaged place it goes on with the next
 * page, as its header tells where the next record begins. Memory: one chunk and one record.
 */
export class DamageTolerantScan {
  readonly #options: ScanOptions;
  readonly #visitor: ScanVisitor;
  #decoder: WalDecoder | undefined;
  #decoderStart = 0n as Lsn;
  #blockSize = DEFAULT_BLOCK_SIZE;
  /** LSN of the first byte of `#rest`, or of the next one to be fed. */
  #at: Lsn | undefined;
  /** Bytes kept back to cut pieces at page boundaries. */
  #rest: Uint8Array = new Uint8Array(0);
  #damage: Damage | undefined;
  /** Up to here nothing is decoded: the rest of a foreign segment. */
  #skipTo = 0n;
  #validEnd: Lsn | undefined;
  /** Where a file could not be read on, and why. */
  #unread: { at: Lsn; why: Unread | undefined } | undefined;
  #enough = false;

  constructor(options: ScanOptions, visitor: ScanVisitor) {
    this.#options = options;
    this.#visitor = visitor;
  }

  /** LSN of the next byte to be fed; undefined before the first. */
  get position(): Lsn | undefined {
    return this.#at === undefined ? undefined : ((this.#at + BigInt(this.#rest.length)) as Lsn);
  }

  /** End of the last complete good record; undefined before the first. */
  get validEnd(): Lsn | undefined {
    return this.#validEnd;
  }

  /** True once the visitor has had enough: feeding on does nothing. */
  get enough(): boolean {
    return this.#enough;
  }

  /** The next bytes begin at `lsn`. What should have been in between is missing. */
  startAt(lsn: Lsn): void {
    if (this.position === lsn) return;
    if (this.position !== undefined) {
      const from = this.position;
      this.finish({ mayEnd: true });
      const range = `${formatLsn(from)} to ${formatLsn(lsn)}`;
      // Told of already as what it is: a file that is there.
      const unread = this.#unread?.at === from ? this.#unread : undefined;
      const message = unread ? `WAL is not read: ${range}` : `WAL is missing: ${range}`;
      this.#report({ kind: 'damage', lsn: from, from, message }, unread ? unread.why : 'missing');
    }
    this.#at = lsn;
  }

  /** Decodes the next bytes; they need not stay. */
  feed(chunk: Uint8Array): void {
    let bytes = chunk;
    if (this.#rest.length > 0) {
      bytes = new Uint8Array(this.#rest.length + chunk.length);
      bytes.set(this.#rest);
      bytes.set(chunk, this.#rest.length);
    }
    const excess = Number((this.#at! + BigInt(bytes.length)) % BigInt(PIECE));
    const whole = Math.max(0, bytes.length - excess);
    this.#rest = bytes.slice(whole);
    this.#decode(bytes.subarray(0, whole));
  }

  /**
   * As `feed`, of zeros with which a partial file is filled up. Nobody need have written them: what
   * they do not complete is not damaged, it is where the WAL ends.
   */
  pad(bytes: number): void {
    this.#decode(this.#rest);
    this.#rest = new Uint8Array(0);
    const at = this.#at!;
    this.#at = (at + BigInt(bytes)) as Lsn;
    if (this.#enough || this.#damage || at < this.#skipTo) return;
    this.#decoder ??= this.#decoderAt(at);
    const decoder = this.#decoder;
    for (let left = bytes; left > 0 && !decoder.fault && !this.#enough; left -= ZEROS.length) {
      decoder.feed(ZEROS.subarray(0, Math.min(left, ZEROS.length)));
      this.#visit(decoder);
    }
  }

  /**
   * What was fed ends here. `mayEnd`: zeros or half a record may be the end of the WAL; otherwise
   * more should have followed.
   */
  finish({ mayEnd }: { mayEnd: boolean }): void {
    this.#decode(this.#rest);
    this.#rest = new Uint8Array(0);
    const fault = this.#decoder?.fault;
    if (fault && !mayEnd) this.#begin(fault);
    this.#decoder = undefined;
    if (this.#damage) this.#report(this.#damage);
    this.#damage = undefined;
  }

  /** A segment ends here and another one follows: zeros up to here were not the end of the WAL. */
  endSegment(): void {
    this.#decode(this.#rest);
    this.#rest = new Uint8Array(0);
    if (!this.#decoder?.fault) return;
    this.#begin(this.#decoder.fault);
    this.#decoder = undefined;
  }

  /** A file cannot be read, or not to its end. */
  unreadable(message: string, why?: Unread): void {
    const lsn = this.position!;
    if (why !== 'missing') this.#unread = { at: lsn, why };
    this.#report({ kind: 'damage', lsn, from: lsn, message }, why);
  }

  #decode(bytes: Uint8Array): void {
    let from = 0;
    while (from < bytes.length && !this.#enough) {
      if (this.#at! < this.#skipTo) {
        const n = Math.min(bytes.length - from, Number(this.#skipTo - this.#at!));
        from += n;
        this.#at = (this.#at! + BigInt(n)) as Lsn;
        continue;
      }
      // In search of a good page, page by page: a bad one must not cost a copy of all behind it.
      const size = this.#damage && !this.#decoder ? this.#blockSize : bytes.length - from;
      const piece = bytes.subarray(from, Math.min(bytes.length, from + size));
      const start = this.#at!;
      this.#at = (start + BigInt(piece.length)) as Lsn;
      from += piece.length;
      const resumeAt = this.#take(piece, start);
      if (resumeAt !== undefined) {
        from -= Number(this.#at - resumeAt);
        this.#at = resumeAt;
      }
    }
  }

  /** Decodes a piece; returns where to begin anew if there is damage in it. */
  #take(piece: Uint8Array, start: Lsn): Lsn | undefined {
    if (start % BigInt(this.#options.segmentSize) === 0n) {
      this.#blockSize = parseLongHeader(piece)?.blockSize ?? this.#blockSize;
    }
    this.#decoder ??= this.#decoderAt(start);
    const decoder = this.#decoder;
    decoder.feed(piece);
    this.#visit(decoder);
    if (decoder.validEnd > this.#decoderStart) this.#resumed();
    const { fault } = decoder;
    if (!fault || this.#enough) return undefined;
    const { nonZero } = decoder.end();
    // Zeros are the end of the WAL as long as nothing follows them.
    if (fault.kind === 'zeros' && nonZero === undefined) return undefined;
    this.#begin(fault);
    this.#decoder = undefined;
    return this.#resumePoint(fault, nonZero, start);
  }

  #visit(decoder: WalDecoder): void {
    for (let record = decoder.next(); record && !this.#enough; record = decoder.next()) {
      this.#resumed();
      if (!this.#enough) this.#enough = this.#visitor.record(record, decoder.serverMajor);
    }
    if (decoder.validEnd === this.#decoderStart) return;
    this.#validEnd = decoder.validEnd;
    if (this.#options.until !== undefined && this.#validEnd > this.#options.until) {
      this.#enough = true;
    }
  }

  #decoderAt(startLsn: Lsn): WalDecoder {
    const { segmentSize, systemId, history, timeline, select } = this.#options;
    this.#decoderStart = startLsn;
    return new WalDecoder({
      ...{ startLsn, segmentSize, systemId, timeline, select },
      ...(history ? { history } : {}),
      partial: true,
    });
  }

  /** The first page that may be good again and is still at hand. */
  #resumePoint(fault: WalFault, nonZero: Lsn | undefined, start: Lsn): Lsn {
    const { segmentSize } = this.#options;
    const scope = faultScope(fault.kind);
    if (scope === 'segment') {
      this.#skipTo = (fault.lsn / BigInt(segmentSize) + 1n) * BigInt(segmentSize);
    }
    const page = BigInt(this.#blockSize);
    const at = nonZero ?? fault.lsn;
    let resume = at - (at % page);
    // A page that contradicts what came before it may be the good one of the two: tried once.
    const untried = resume >= fault.lsn && resume > this.#decoderStart;
    if (!untried || (nonZero === undefined && scope !== 'page')) resume += page;
    const first = ((start + page - 1n) / page) * page;
    if (resume < first) resume = first;
    return (resume < this.#at! ? resume : this.#at!) as Lsn;
  }

  #begin(fault: WalFault): void {
    const { lsn, validEnd: from } = fault;
    this.#damage ??= { kind: 'damage', lsn, from, message: fault.message };
  }

  /** A record behind the damage is good. */
  #resumed(): void {
    if (!this.#damage) return;
    const damage = { ...this.#damage, resumedAt: this.#decoderStart };
    this.#damage = undefined;
    this.#report(damage);
  }

  #report(damage: Damage, why?: Unread): void {
    if (this.#visitor.damage(damage, why)) this.#enough = true;
  }
}
