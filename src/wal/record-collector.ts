import type { Lsn } from '../lsn.js';
import { joinLsn } from './address.js';
import {
  parseRecordHeader,
  type RecordHeader,
  type RecordVisitor,
  type WalRecord,
} from './record.js';

/** Puts records together from their pieces. */
export class RecordCollector implements RecordVisitor {
  readonly #maxRecord: number;
  readonly #select: ((rmgr: number, info: number) => boolean) | undefined;
  #header: RecordHeader | undefined;
  #lsn: Lsn | undefined;
  #pieces: Uint8Array[] = [];
  #done: WalRecord | undefined;

  constructor(maxRecord: number, select?: (rmgr: number, info: number) => boolean) {
    this.#maxRecord = maxRecord;
    this.#select = select;
  }

  begin(header: Uint8Array, at: number, lsnHi: number, lsnLo: number): boolean {
    if (this.#select && !this.#select(header[at + 17]!, header[at + 16]!)) return false;
    this.#header = parseRecordHeader(header, at);
    this.#lsn = joinLsn(lsnHi, lsnLo);
    return true;
  }

  body(bytes: Uint8Array, start: number, end: number): void {
    // Copied as it comes: a length that is garbage must not make us allocate ahead of the bytes.
    if (this.#header!.totalLength <= this.#maxRecord) this.#pieces.push(bytes.slice(start, end));
  }

  complete(endLsn: Lsn): void {
    const header = this.#header!;
    const record: WalRecord = { lsn: this.#lsn!, endLsn, ...header };
    if (header.totalLength <= this.#maxRecord) record.body = concat(this.#pieces);
    this.#done = record;
    this.abandon();
  }

  abandon(): void {
    this.#header = undefined;
    this.#pieces = [];
  }

  take(): WalRecord | undefined {
    const record = this.#done;
    this.#done = undefined;
    return record;
  }
}

function concat(pieces: readonly Uint8Array[]): Uint8Array {
  if (pieces.length === 1) return pieces[0]!;
  const all = new Uint8Array(pieces.reduce((n, piece) => n + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    all.set(piece, at);
    at += piece.length;
  }
  return all;
}
