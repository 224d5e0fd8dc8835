import type { WalkeepError } from '../errors.js';
import type { Lsn } from '../lsn.js';
import { faultToError, type WalFault } from '../wal/fault.js';
import { segmentOf, segmentStart } from '../wal/file-name.js';
import { DEFAULT_BLOCK_SIZE } from '../wal/page.js';
import { WalVerifier } from '../wal/verifier.js';
import type { WalOptions } from '../wal/walker.js';

/** How received WAL is checked. `warn` stores what fails and says so, `strict` refuses it. */
export type VerifyMode = 'off' | 'warn' | 'strict';

export interface InspectorOptions extends WalOptions {
  mode: 'warn' | 'strict';
  /** LSN of the first byte fed, if that is before `startLsn`: what is before that is not checked. */
  feedLsn?: Lsn;
  /** Stands at `startLsn` and knows the record that goes on there; absent: its rest is skipped. */
  anchored?: WalVerifier | undefined;
  /** A fault in `warn` mode. */
  onFault: (fault: WalFault) => void;
  /** Pages of an unknown major: said once. */
  onUnknownMagic: (magic: number) => void;
}

/** Checks the stream before it is written. */
export class WalInspector {
  private readonly o: InspectorOptions;
  private verifier: WalVerifier;
  private toldMagic = false;
  /** LSN of the first byte fed. */
  private readonly begin: Lsn;
  /** Bytes fed. */
  private fed = 0;
  /** So many of them are not looked at: before the start, and in `warn` mode behind a fault. */
  private resumeAt: number;
  /** Where the verifier began. */
  private startedAt: Lsn;

  constructor(options: InspectorOptions) {
    this.o = options;
    this.verifier = options.anchored ?? new WalVerifier(options);
    this.begin = options.feedLsn ?? options.startLsn;
    this.startedAt = options.startLsn;
    this.resumeAt = Number(options.startLsn - this.begin);
  }

  /**
   * Feeds the next chunks. Undefined if all is well; in `strict` mode the error, with V, the LSN up
   * to which nothing is known to be bad.
   */
  feed(
    chunks: readonly Uint8Array[],
  ): { error: WalkeepError; fault: WalFault; verifiedEnd: Lsn } | undefined {
    for (const chunk of chunks) this.feedChunk(chunk);
    const { fault, unknownMagic, magic } = this.verifier;
    if (unknownMagic && !this.toldMagic) {
      this.toldMagic = true;
      this.o.onUnknownMagic(magic ?? 0);
    }
    if (!fault) return undefined;
    if (this.o.mode === 'strict') {
      return { error: faultToError(fault), fault, verifiedEnd: this.verifier.verifiedEnd };
    }
    this.o.onFault(fault);
    const { segmentSize } = this.o;
    const last = (this.begin + BigInt(this.fed - 1)) as Lsn;
    this.resume(segmentStart(segmentOf(last, segmentSize) + 1n, segmentSize));
    return undefined;
  }

  private resume(startLsn: Lsn): void {
    this.startedAt = startLsn;
    this.resumeAt = Number(startLsn - this.begin);
    this.verifier = new WalVerifier({ ...this.o, startLsn });
  }

  private feedChunk(chunk: Uint8Array): void {
    const before = this.fed;
    this.fed += chunk.length;
    while (this.resumeAt < this.fed) {
      const fault = this.verifier.feed(chunk, Math.max(0, this.resumeAt - before));
      if (!fault || !this.mayBeUnused(fault)) return;
      this.resume((fault.lsn + BigInt(this.o.blockSize ?? DEFAULT_BLOCK_SIZE)) as Lsn);
    }
  }

  /**
   * True if no page is where the check began within a segment. A stream that is gone on with behind
   * XLOG_SWITCH begins so, and what stands there is no WAL; the next page is tried.
   */
  private mayBeUnused({ kind, lsn }: WalFault): boolean {
    if (lsn !== this.startedAt || lsn % BigInt(this.o.segmentSize) === 0n) return false;
    return kind !== 'page-timeline' && kind !== 'page-continuation';
  }
}
