import type { Lsn } from '../lsn.js';
import { rmgrName, type WalRecord } from '../wal/record.js';
import {
  type BlockReference,
  parseRecordBody,
  type RecordBody,
} from '../wal/records/record-body.js';

/** A complete, checked record of the WAL. What it is made of is decoded when it is asked for. */
export class LoggedRecord {
  /** First byte of the record. */
  readonly lsn: Lsn;
  /** Where the next record can begin. */
  readonly endLsn: Lsn;
  /** The record before. */
  readonly prev: Lsn;
  readonly timeline: number;
  /** Transaction, 0 for none. */
  readonly xid: number;
  /** Resource manager, as a number (xl_rmid); `rmgrName` is its name. */
  readonly rmgr: number;
  /** xl_info: the upper four bits are the resource manager's. */
  readonly info: number;
  /** Bytes, header included. */
  readonly totalLength: number;
  /** Of the server that wrote it, 18; undefined if its pages are of no version that is known. */
  readonly serverMajor: number | undefined;
  private readonly body: Uint8Array | undefined;
  private parsed: RecordBody | undefined;

  /** @internal */
  constructor(record: WalRecord, timeline: number, serverMajor: number | undefined) {
    this.lsn = record.lsn;
    this.endLsn = record.endLsn;
    this.prev = record.prev;
    this.xid = record.xid;
    this.rmgr = record.rmgr;
    this.info = record.info;
    this.totalLength = record.totalLength;
    this.body = record.body;
    this.timeline = timeline;
    this.serverMajor = serverMajor;
  }

  /** `Heap`, `Transaction`, …, as pg_waldump prints it. */
  get rmgrName(): string {
    return rmgrName(this.rmgr);
  }

  /** False: longer than `maxRecord`, so that only its header is here. */
  get isWhole(): boolean {
    return this.body !== undefined;
  }

  /** Blocks, data, origin. Empty where the record is not whole. @throws CorruptWalError */
  get contents(): RecordBody {
    this.parsed ??= this.body
      ? parseRecordBody(this.body, { major: this.serverMajor })
      : { blocks: [], data: new Uint8Array(0) };
    return this.parsed;
  }

  /** The pages that it changes. @throws CorruptWalError */
  get blocks(): readonly BlockReference[] {
    return this.contents.blocks;
  }

  /** What the resource manager stored. @throws CorruptWalError */
  get data(): Uint8Array {
    return this.contents.data;
  }
}
