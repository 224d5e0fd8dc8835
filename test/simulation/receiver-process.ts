import { WalkeepError } from '../../src/errors.js';
import type { FileSystem } from '../../src/files/file-system.js';
import { DirectoryReceiver } from '../../src/receive/directory-receiver.js';
import type { WalReceiverOptions } from '../../src/receive/options.js';
import { mayRetry } from '../../src/receive/retry.js';
import type { WriteReport } from '../../src/receive/target/paced-target.js';
import type { ModelConnection } from './model-connection.js';

/** What the world around a process gives and is told. */
export interface Surroundings {
  fs: FileSystem;
  options: WalReceiverOptions;
  writeReport: WriteReport;
  connect: () => ModelConnection;
  onEvent: (event: string, detail: unknown) => void;
  /** An attempt failed and the next one begins. */
  onRetry: (error: WalkeepError) => void;
}

/**
 * A receiver process: WalReceiver without its lock, its delays and the making of connections. The
 * DirectoryReceiver and all below it are the real ones, over the model's connections.
 */
export class ReceiverProcess {
  connection: ModelConnection | undefined;
  /** Set once it ended by itself: undefined error for a clean stop. */
  ended: { error?: unknown } | undefined;
  private readonly s: Surroundings;
  private readonly abort = new AbortController();
  private readonly receiver: DirectoryReceiver;

  constructor(surroundings: Surroundings) {
    this.s = surroundings;
    const { options, fs, writeReport, onEvent } = surroundings;
    this.receiver = new DirectoryReceiver(options, {
      tell: onEvent,
      onHeadway: () => {},
      chooseWriteReport: async () => writeReport,
      fs,
    });
    this.run().then(
      () => {
        this.ended = {};
      },
      (error) => {
        this.ended = { error };
      },
    );
  }

  stop(): void {
    this.abort.abort();
  }

  private async run(): Promise<void> {
    const { signal } = this.abort;
    for (;;) {
      const connection = this.s.connect();
      this.connection = connection;
      try {
        await this.receiver.serve(connection.asConnection, signal, () => {});
        return;
      } catch (e) {
        if (!(e instanceof WalkeepError)) throw e;
        if (signal.aborted && mayRetry(e, true)) return;
        const { again, error } = this.receiver.afterFailure(e);
        if (again === 'never') throw error;
        if (again === 'later') this.s.onRetry(error);
      } finally {
        connection.destroy();
      }
    }
  }
}
