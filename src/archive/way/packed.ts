import type { Lsn } from '../../lsn.js';
import { type Address, splitLsn } from '../../wal/address.js';
import { KERNEL } from '../../wal/kernel.js';
import {
  kindOf,
  NOTED,
  RECORD_HEADER_SIZE,
  type RecordKinds,
  type RecordVisitor,
  type WalRecord,
} from '../../wal/record.js';
import { isPlainBody, PLAIN_LENGTH } from '../../wal/records/xact.js';

/** What is told of a record that was found. */
export type FoundRecord = Omit<WalRecord, 'prev' | 'crc'>;

/**
 * Before the body of each record: its LSN, how far behind that the next one can begin, and of its own
 * header what is looked at.
 */
const SPAN = 8;
const XID = 12;
const LENGTH = 16;
const INFO = 20;
const RMGR = 21;
const HEADER = 22;
const FIRST_SIZE = 64 * 1024;
/** Longer ones are not packed: nobody waits for their memory. */
const MOST = 64 * 1024 * 1024;

/** Bytes that a thread keeps for the next run: large memory that comes and goes costs time. */
const SPARE = 8 * 1024 * 1024;
let spare: Uint8Array<ArrayBuffer> | undefined;

/** Records of some kinds, one behind the other in one piece of memory that can be sent to a thread. */
export class PackedRecords implements RecordVisitor {
  readonly kinds: RecordKinds;
  /** A record was left out, since it is too long. */
  isIncomplete = false;
  /** What begins here, or behind, is another's. */
  readonly #border: Address;
  #bytes = spare ?? new Uint8Array(FIRST_SIZE);
  #view = new DataView(this.#bytes.buffer);
  #mayBeNoted = false;
  /** Transactions of plain ends that are noted, in no order. */
  #ended = new Int32Array(1024);
  #noted = 0;
  /** Behind the last whole record, and behind what there is of the next one. */
  #end = 0;
  #at = 0;

  constructor(kinds: RecordKinds, border: Lsn) {
    this.kinds = kinds;
    this.#border = splitLsn(border);
    spare = undefined;
  }

  /** Transactions whose plain ends were noted and not packed, as bit patterns, in no order. */
  get ended(): Int32Array {
    return this.#ended.slice(0, this.#noted);
  }

  /** All that were whole, as a copy; then no more may come. */
  take(): Uint8Array {
    if (this.#bytes.length <= SPARE) spare = this.#bytes;
    return this.#bytes.slice(0, this.#end);
  }

  begin(header: Uint8Array, at: number, lsnHi: number, lsnLo: number): boolean {
    const [info, rmgr] = [header[at + 16]!, header[at + 17]!];
    const kind = this.kinds[kindOf(rmgr, info)];
    if (kind === 0) return false;
    const [hi, lo] = [lsnHi >>> 0, lsnLo >>> 0];
    const { hi: borderHi, lo: borderLo } = this.#border;
    if (hi > borderHi || (hi === borderHi && lo >= borderLo)) return false;
    const length = wordAt(header, at);
    if (length >= MOST) {
      this.isIncomplete = true;
      return false;
    }
    this.#mayBeNoted = kind === NOTED && length === PLAIN_LENGTH;
    const place = this.#end;
    this.#at = place;
    this.#reserve(HEADER);
    const view = this.#view;
    view.setUint32(place, lo, true);
    view.setUint32(place + 4, hi, true);
    view.setUint32(place + XID, wordAt(header, at + 4), true);
    view.setUint32(place + LENGTH, length, true);
    view.setUint8(place + INFO, info);
    view.setUint8(place + RMGR, rmgr);
    this.#at += HEADER;
    return true;
  }

  body(bytes: Uint8Array, start: number, end: number): void {
    this.#reserve(end - start);
    const to = this.#bytes;
    let at = this.#at;
    // A view costs more than copying a commit does.
    if (end - start > 64) to.set(bytes.subarray(start, end), at);
    else for (let from = start; from < end; from++) to[at++] = bytes[from]!;
    this.#at += end - start;
  }

  complete(endLsn: Lsn): void {
    if (this.#mayBeNoted && isPlainBody(this.#bytes, this.#end + HEADER)) {
      this.#note(Int32Array.of(this.#view.getInt32(this.#end + XID, true)));
      return;
    }
    const begin = this.#view.getUint32(this.#end, true);
    // Less than 4 GB: the lower halves tell.
    const span = (Number(endLsn & 0xffff_ffffn) - begin) >>> 0;
    this.#view.setUint32(this.#end + SPAN, span, true);
    this.#end = (this.#at + 7) & ~7;
  }

  /** Takes what the kernel has noted, which must be done before it walks on in other WAL. */
  noteEnded(): void {
    KERNEL?.takeEnded((xids) => this.#note(xids));
  }

  #note(xids: Int32Array): void {
    const needed = this.#noted + xids.length;
    if (needed > this.#ended.length) {
      const larger = new Int32Array(Math.max(needed, 2 * this.#ended.length));
      larger.set(this.#ended.subarray(0, this.#noted));
      this.#ended = larger;
    }
    this.#ended.set(xids, this.#noted);
    this.#noted = needed;
  }

  abandon(): void {
    this.#at = this.#end;
  }

  /** Makes room for so many bytes, and to align what is behind them. */
  #reserve(bytes: number): void {
    const needed = this.#at + bytes + 8;
    if (needed <= this.#bytes.length) return;
    const larger = new Uint8Array(Math.max(needed, 2 * this.#bytes.length));
    larger.set(this.#bytes.subarray(0, this.#at));
    this.#bytes = larger;
    this.#view = new DataView(larger.buffer);
  }
}

/** Takes packed records out again, in their order. */
export class PackedReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;

  constructor(packed: Uint8Array) {
    this.#bytes = packed;
    this.#view = new DataView(packed.buffer, packed.byteOffset, packed.length);
  }

  /** LSN of the next record; undefined behind the last. */
  get lsn(): Lsn | undefined {
    if (this.#at >= this.#bytes.length) return undefined;
    return this.#view.getBigUint64(this.#at, true) as Lsn;
  }

  *[Symbol.iterator](): Generator<FoundRecord> {
    while (this.lsn !== undefined) yield this.take();
  }

  take(): FoundRecord {
    const [at, view] = [this.#at, this.#view];
    const lsn = view.getBigUint64(at, true);
    const totalLength = view.getUint32(at + LENGTH, true);
    const body = at + HEADER;
    this.#at += (HEADER + totalLength - RECORD_HEADER_SIZE + 7) & ~7;
    return {
      lsn: lsn as Lsn,
      endLsn: (lsn + BigInt(view.getUint32(at + SPAN, true))) as Lsn,
      totalLength,
      xid: view.getUint32(at + XID, true),
      info: view.getUint8(at + INFO),
      rmgr: view.getUint8(at + RMGR),
      body: this.#bytes.slice(body, body + totalLength - RECORD_HEADER_SIZE),
    };
  }
}

function wordAt(bytes: Uint8Array, at: number): number {
  const low = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16);
  return (low | (bytes[at + 3]! << 24)) >>> 0;
}
