import { performance } from 'node:perf_hooks';
import type { Lsn } from '../../lsn.js';
import { PacedTarget } from './paced-target.js';
import type { WalTarget } from './wal-target.js';
import { type WalWriter, WriterPositions } from './wal-writer.js';

/** What takes the WAL, as `WalSink` says: one call of each at a time. */
export interface SinkTargetOptions {
  /** Where the stream starts. */
  startLsn: Lsn;
  write(chunk: Uint8Array, lsn: Lsn): Promise<void>;
  flush(): Promise<void>;
  /** Flush whenever WAL was written. */
  synchronous: boolean;
  /** Otherwise milliseconds between flushes. */
  flushInterval: number;
}

/** A sink as the target of a stream. */
export function sinkTarget(options: SinkTargetOptions): WalTarget {
  const { synchronous } = options;
  return new PacedTarget({ writer: new SinkWriter(options), synchronous, writeReport: 'slow' });
}

class SinkWriter implements WalWriter {
  readonly positions: WriterPositions;
  readonly pending = 0;
  private readonly o: SinkTargetOptions;
  private flushedAt = performance.now();
  /** One behind the other; behind a failed one there is none. */
  private flushing = Promise.resolve();

  constructor(options: SinkTargetOptions) {
    this.o = options;
    this.positions = new WriterPositions(options.startLsn);
  }

  async write(chunks: readonly Uint8Array[]): Promise<void> {
    const { o, positions } = this;
    for (const chunk of chunks) {
      const begin = positions.written;
      await o.write(chunk, positions.lsn(begin));
      positions.wrote(begin + chunk.length);
    }
    if (o.synchronous) return;
    if (performance.now() - this.flushedAt >= o.flushInterval) await this.sync();
  }

  sync(): Promise<void> {
    this.flushing = this.flushing.then(() => this.flush());
    return this.flushing;
  }

  async close(): Promise<void> {
    if (this.positions.flushed < this.positions.written) await this.sync();
  }

  private async flush(): Promise<void> {
    const covered = this.positions.written;
    await this.o.flush();
    this.flushedAt = performance.now();
    this.positions.synced(covered);
  }
}
