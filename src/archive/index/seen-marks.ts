import type { Lsn } from '../../lsn.js';
import { majorOfMagic } from '../../wal/page.js';
import { type RecordVisitor, recordKinds } from '../../wal/record.js';
import { RecordCollector } from '../../wal/record-collector.js';
import { WalVerifier } from '../../wal/verifier.js';
import type { WalOptions } from '../../wal/walker.js';
import { isMark, type Mark, markOf } from '../way/marks.js';

/** One that is longer is damage; nobody waits for its memory. */
const LONGEST = 64 * 1024 * 1024;

const MARKS = recordKinds(isMark);

/** The marks in WAL that is checked, noted as it goes by: checking it takes hardly longer. */
export class SeenMarks implements RecordVisitor {
  readonly kinds = MARKS;
  /** In the order of the WAL; undefined once one was not what its type says. */
  marks: Mark[] | undefined = [];
  /** The record that was begun last is perhaps a mark, and is not whole yet. */
  open = false;
  readonly #records = new RecordCollector(LONGEST, isMark);
  #verifier: WalVerifier | undefined;

  /** What checks the WAL whose marks are wanted. */
  verifier(options: WalOptions): WalVerifier {
    this.#verifier = new WalVerifier(options, this);
    return this.#verifier;
  }

  /** End of the last record that is whole and good. */
  get validEnd(): Lsn | undefined {
    return this.#verifier?.fault ? undefined : this.#verifier?.validEnd;
  }

  begin(header: Uint8Array, at: number, lsnHi: number, lsnLo: number): boolean {
    this.open = this.#records.begin(header, at, lsnHi, lsnLo);
    return this.open;
  }

  body(bytes: Uint8Array, start: number, end: number): void {
    this.#records.body(bytes, start, end);
  }

  complete(endLsn: Lsn): void {
    this.open = false;
    this.#records.complete(endLsn);
    const record = this.#records.take();
    try {
      const mark = record && markOf(record, majorOfMagic(this.#verifier?.magic ?? 0));
      if (mark) this.marks?.push(mark);
    } catch {
      // The WAL is good all the same: its checksums say so, and nothing needs its marks.
      this.marks = undefined;
    }
  }

  abandon(): void {
    this.open = false;
    this.#records.abandon();
  }
}
