import { formatLsn, type Lsn } from '../lsn.js';
import type { WalFault } from '../wal/fault.js';
import { segmentStart } from '../wal/file-name.js';
import type { WalVerifier } from '../wal/verifier.js';
import { lengthWithoutZeros } from '../wal/zeros.js';
import type { Finding } from './findings.js';

const ZEROS = new Uint8Array(64 * 1024);

/**
 * Checks the content of a partial segment. Behind its last byte that is not zero nothing was
 * written, so the WAL may be torn there; a fault before that is damage, unless it lies where bytes
 * were not acknowledged yet: after a crash of the machine the disk may have later ones and lack
 * earlier ones.
 */
export class PartialCheck {
  readonly findings: Finding[] = [];
  /** End of the last complete good record, once `end` was called. */
  validEnd: Lsn;
  readonly #name: string;
  readonly #start: Lsn;
  readonly #end: Lsn;
  /** Acknowledged up to here, as far as this segment goes; undefined if nothing is known. */
  readonly #flushed: Lsn | undefined;
  readonly #verifier: () => WalVerifier;
  readonly #fileOf: (lsn: Lsn) => string;
  #position: bigint;
  /** Bytes that were zero and perhaps are the end. */
  #zeros = 0;
  #damaged = false;

  constructor(
    file: { name: string; start: Lsn; segment: bigint },
    segmentSize: number,
    flushed: Lsn | undefined,
    verifier: () => WalVerifier,
    fileOf: (lsn: Lsn) => string,
  ) {
    this.#name = file.name;
    this.#start = file.start;
    this.#end = segmentStart(file.segment + 1n, segmentSize);
    const bound = flushed !== undefined && flushed > this.#end ? this.#end : flushed;
    this.#flushed = flushed === undefined ? undefined : bound;
    this.#verifier = verifier;
    this.#fileOf = fileOf;
    this.validEnd = file.start;
    this.#position = file.start;
  }

  feed(bytes: Uint8Array): void {
    const used = lengthWithoutZeros(bytes);
    if (used > 0) {
      this.#takeZeros(this.#zeros);
      this.#take(bytes.subarray(0, used));
      this.#zeros = 0;
    }
    this.#zeros += bytes.length - used;
  }

  /**
   * After the last byte of the file, of which it has `size` decompressed. True if the WAL is good
   * up to the end of the segment.
   */
  end(size: number): boolean {
    const whole = this.#finish(size);
    this.validEnd = this.#verifier().validEnd;
    return whole;
  }

  #finish(size: number): boolean {
    const dataEnd = this.#position;
    const flushed = this.#flushed ?? 0n;
    if (!this.#damaged && this.#start + BigInt(size) < flushed) {
      this.#tell('flushed-damaged', dataEnd, `holds WAL up to ${formatLsn(dataEnd)}`);
    }
    // Zeros that were acknowledged must be part of WAL as any other bytes.
    if (flushed > dataEnd) this.#takeZeros(Number(flushed - dataEnd));
    if (this.#damaged) return false;
    const torn = dataEnd > this.#start && this.#verifier().end().kind === 'torn';
    this.#takeZeros(Number(this.#end - this.#position), false);
    const verifier = this.#verifier();
    if (!verifier.fault) return true;
    if (torn && verifier.validEnd < dataEnd) {
      this.findings.push({
        severity: 'info',
        code: 'torn-tail',
        file: this.#name,
        lsn: verifier.validEnd,
        message: `ends at ${formatLsn(dataEnd)} inside the record that begins at ${formatLsn(verifier.validEnd)}`,
        hint: 'The usual end of what was received last; the rest comes when the receiver goes on.',
      });
    }
    return false;
  }

  #takeZeros(count: number, judge = true): void {
    for (let left = count; left > 0; left -= ZEROS.length) {
      this.#take(ZEROS.subarray(0, Math.min(left, ZEROS.length)), judge);
    }
  }

  #take(bytes: Uint8Array, judge = true): void {
    const border = Number((this.#flushed ?? 0n) - this.#position);
    const cut = border > 0 && border < bytes.length ? border : bytes.length;
    for (const [from, to] of [
      [0, cut],
      [cut, bytes.length],
    ] as const) {
      if (from === to) continue;
      const fault = this.#damaged ? undefined : this.#verifier().feed(bytes, from, to);
      this.#position += BigInt(to - from);
      if (fault && judge) this.#fault(fault);
    }
  }

  #fault(fault: WalFault): void {
    const what = fault.kind === 'zeros' ? 'zeros where WAL should be' : fault.message;
    if (this.#flushed !== undefined && this.#position <= this.#flushed) {
      const where =
        fault.lsn < this.#start ? `${what} in a record that ends in ${this.#name}` : what;
      this.#tell('flushed-damaged', fault.lsn, where);
      return;
    }
    this.#damaged = true;
    const known = this.#flushed !== undefined;
    // A record that began in the segment before, which is complete: its part there may be the bad one.
    const before = fault.lsn < this.#start;
    const where = before ? `; the record ends in ${this.#name}` : ', in a partial segment';
    this.findings.push({
      severity: known ? (before ? 'warning' : 'info') : before ? 'error' : 'warning',
      code: fault.kind,
      file: this.#fileOf(fault.lsn),
      lsn: fault.lsn,
      message: `${what}${where}`,
      hint: known
        ? 'Not all of these bytes were acknowledged yet; the receiver gets those again.'
        : 'The receiver gets it again from the server, if that still has it.',
    });
  }

  #tell(code: 'flushed-damaged', lsn: bigint, what: string): void {
    this.#damaged = true;
    this.findings.push({
      severity: 'error',
      code,
      file: this.#fileOf(lsn as Lsn),
      lsn: lsn as Lsn,
      message: `${what}, but WAL up to ${formatLsn(this.#flushed!)} was acknowledged`,
      hint: 'Acknowledged WAL was lost: check the disk, and let the server send it again.',
    });
  }
}
