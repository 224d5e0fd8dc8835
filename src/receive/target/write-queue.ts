import type { BulkStage, StagedBlock } from './bulk-stage.js';
import type { WalWriter } from './wal-writer.js';

/** Bytes held in memory while the disk stalls, before the socket is paused. */
const HIGH_WATER = 4 * 1024 * 1024;
/** Bytes after which one write takes no more. */
const MAX_BATCH = 2 * 1024 * 1024;
/** A staged block that is not full is written after this many milliseconds all the same. */
const STAGED_FOR = 200;

/** What is written later: a copy, or a block of the stage. */
type Entry = { bytes: Uint8Array } & Partial<StagedBlock>;

/**
 * WAL that is written off the event loop, in order: copies while the disk stalls, and large blocks
 * while WAL comes in bulk.
 */
export class WriteQueue {
  private readonly writer: WalWriter;
  private readonly stage: BulkStage | undefined;
  private readonly onWritten: (milliseconds: number) => void;
  private readonly onFailure: (error: unknown) => void;
  private entries: Entry[] = [];
  private bytes = 0;
  private running: Promise<void> | undefined;
  private failed = false;
  private stagedAt = 0;
  /** Write what was collected as soon as the disk is free, though its block is not full. */
  private eager = false;

  /**
   * @param onWritten called after each write with the time it took
   * @param onFailure called once; nothing is written after it
   */
  constructor(
    writer: WalWriter,
    onWritten: (milliseconds: number) => void,
    onFailure: (error: unknown) => void,
  ) {
    this.writer = writer;
    this.stage = writer.stage;
    this.onWritten = onWritten;
    this.onFailure = onFailure;
  }

  /** True while something is here that comes before what is received now. */
  get isBusy(): boolean {
    return this.running !== undefined || this.stage?.isEmpty === false;
  }

  /** Too much is waiting: the socket should be paused. */
  get isFull(): boolean {
    return this.bytes > HIGH_WATER || this.stage?.isFull === true;
  }

  get hasRoom(): boolean {
    return this.bytes <= HIGH_WATER / 2 && this.stage?.hasRoom !== false;
  }

  /**
   * Takes copies, behind all that came before; `position` is that of the first byte in a file.
   * @param bulk much more is to come: blocks are filled before they are written
   */
  push(chunks: readonly Uint8Array[], position: number, bulk: boolean): void {
    const { stage } = this;
    if (!stage) {
      this.enqueue({ bytes: Buffer.concat(chunks) });
      return;
    }
    this.eager = !bulk;
    if (stage.isEmpty) this.stagedAt = performance.now();
    let at = position;
    for (const chunk of chunks) {
      stage.add(chunk, at, this.onBlock);
      at += chunk.length;
    }
    if (this.eager && !this.running) this.release();
  }

  /** Writes what was collected although its block is not full. */
  release(): void {
    const staged = this.stage?.take();
    if (staged) this.enqueue(staged);
  }

  /** As `release` for what has waited long. */
  releaseOld(now: number): void {
    if (this.stage?.isEmpty === false && now - this.stagedAt > STAGED_FOR) this.release();
  }

  /** Resolves when nothing is waiting; what fails was told to `onFailure`. */
  async idle(): Promise<void> {
    this.release();
    await this.running;
  }

  private readonly onBlock = (full: StagedBlock) => {
    this.enqueue(full);
    this.stagedAt = performance.now();
  };

  private enqueue(entry: Entry): void {
    // Behind a failed write there is a hole: nothing may be stored there in its place.
    if (this.failed) return;
    this.entries.push(entry);
    this.bytes += entry.bytes.length;
    this.running ??= this.run();
  }

  /** What one call writes: about two blocks, the others are filled meanwhile. */
  private nextBatch(): Entry[] {
    let n = 0;
    for (let bytes = 0; n < this.entries.length && bytes < MAX_BATCH; n += 1) {
      bytes += (this.entries[n] as Entry).bytes.length;
    }
    return this.entries.splice(0, n);
  }

  private async run(): Promise<void> {
    try {
      while (this.entries.length > 0) {
        const batch = this.nextBatch();
        const began = performance.now();
        await this.writer.write(batch.map((e) => e.bytes));
        for (const e of batch) {
          this.bytes -= e.bytes.length;
          if (e.block) this.stage?.giveBack(e as StagedBlock);
        }
        this.onWritten(performance.now() - began);
        if (this.eager && this.entries.length === 0) this.release();
      }
    } catch (e) {
      this.failed = true;
      this.entries = [];
      this.onFailure(e);
    } finally {
      this.running = undefined;
    }
  }
}
