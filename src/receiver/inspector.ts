import type { WalkeepError } from '../errors.js';
import { faultToError, type WalFault } from '../wal/fault.js';
import { segmentOf, segmentStart } from '../wal/file-name.js';
import type { Lsn } from '../wal/lsn.js';
import { WalVerifier } from '../wal/verifier.js';
import type { WalOptions } from '../wal/walker.js';

/** How received WAL is checked. `warn` stores what fails and says so, `strict` refuses it. */
export type VerifyMode = 'off' | 'warn' | 'strict';

export interface InspectorOptions extends WalOptions {
  mode: 'warn' | 'strict';
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
  /** WAL up to here is not looked at: before the start, and in `warn` mode behind a fault. */
  private resumeAt: bigint | undefined;

  constructor(options: InspectorOptions) {
    this.o = options;
    this.verifier = options.anchored ?? new WalVerifier(options);
    this.resumeAt = options.startLsn;
  }

  /**
   * Feeds the next chunks, which begin at `lsn`. Undefined if all is well; in `strict` mode the
   * error, with V, the LSN up to which nothing is known to be bad.
   */
  feed(
    chunks: readonly Uint8Array[],
    lsn: Lsn,
  ): { error: WalkeepError; fault: WalFault; verifiedEnd: Lsn } | undefined {
    let at: bigint = lsn;
    for (const chunk of chunks) {
      this.feedChunk(chunk, at);
      at += BigInt(chunk.length);
    }
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
    this.resumeAt = segmentStart(segmentOf(at - 1n, segmentSize) + 1n, segmentSize);
    this.verifier = new WalVerifier({ ...this.o, startLsn: this.resumeAt as Lsn });
    return undefined;
  }

  private feedChunk(chunk: Uint8Array, lsn: bigint): void {
    if (this.resumeAt === undefined) {
      this.verifier.feed(chunk);
      return;
    }
    const skip = Number(this.resumeAt - lsn);
    if (skip >= chunk.length) return;
    this.resumeAt = undefined;
    this.verifier.feed(chunk, Math.max(0, skip));
  }
}
