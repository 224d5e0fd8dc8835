import { ConnectionError, type WalkeepError } from '../../src/errors.js';
import type { FileSystem } from '../../src/files/file-system.js';
import type { WalReceiverOptions } from '../../src/receive/options.js';
import type { WalReceiver } from '../../src/receive/receiver.js';
import { Refusals } from '../../src/receive/refusals.js';
import { type AskedStream, RemovedWal } from '../../src/receive/removed-wal.js';
import { mayRetry } from '../../src/receive/retry.js';
import { Archive } from '../../src/receive/start/receiving-directory.js';
import type { WriteReport } from '../../src/receive/target/paced-target.js';
import { TimelineRun } from '../../src/receive/timeline-run.js';
import type { ModelConnection } from './model-connection.js';
import type { ModelServer } from './model-server.js';

/** What the world around a process gives and is told. */
export interface Surroundings {
  server: ModelServer;
  fs: FileSystem;
  options: WalReceiverOptions;
  writeReport: WriteReport;
  connect: () => ModelConnection;
  onEvent: (event: string, detail: unknown) => void;
  /** An attempt failed and the next one begins. */
  onRetry: (error: WalkeepError) => void;
}

/**
 * A receiver process: the loop of WalReceiver with the model's connection in place of a socket.
 * Archive, TimelineRun and all below them are the real ones.
 */
export class ReceiverProcess {
  connection: ModelConnection | undefined;
  /** Set once it ended by itself: undefined error for a clean stop. */
  ended: { error?: unknown } | undefined;
  private readonly s: Surroundings;
  private readonly abort = new AbortController();
  private readonly refusals = new Refusals();
  private readonly removed = new RemovedWal();
  private asked: AskedStream | undefined;

  constructor(surroundings: Surroundings) {
    this.s = surroundings;
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
    for (;;) {
      const connection = this.s.connect();
      this.connection = connection;
      try {
        await this.serve(connection);
        return;
      } catch (e) {
        const error = e as WalkeepError;
        if (this.removed.leadsOn(error, this.asked)) continue;
        if (!mayRetry(error, true) && !this.refusals.mayAskAgain(error)) throw error;
        if (this.abort.signal.aborted) return;
        this.s.onRetry(error);
      } finally {
        connection.destroy();
      }
    }
  }

  /** As WalReceiver.serve. */
  private async serve(connection: ModelConnection): Promise<void> {
    const { fs, options, onEvent } = this.s;
    const server = this.s.server.state();
    this.asked = undefined;
    const archive = await Archive.open(options, connection.asConnection, server, {
      removed: this.removed,
      slotInvalid: false,
      refused: this.refusals.current,
      writeReport: this.s.writeReport,
      warn: (code) => onEvent('warning', { code }),
      fs,
    });
    try {
      let { lsn, timeline } = archive.start;
      for (;;) {
        const owner = {
          tell: onEvent,
          noteProgress: () => this.removed.reset(),
          refusals: this.refusals,
        } as unknown as WalReceiver;
        const at = { lsn, timeline };
        const refused = this.refusals.current !== undefined;
        this.asked = {
          ...{ timeline, history: server.history, segmentSize: server.segmentSize },
          completeBeyond: archive.completeBeyond && !refused,
          unproved: refused ? undefined : archive.unproved,
          mayGoOver: false,
        };
        const run = new TimelineRun(options, connection.asConnection, archive, at, owner);
        const outcome = await run.stream(this.abort.signal, () => {});
        if (outcome.kind === 'stopped') return;
        if (outcome.end.kind === 'shutdown') throw new ConnectionError('the server shut down');
        ({ lsn, timeline } = await archive.follow(
          connection.asConnection,
          timeline,
          outcome.lsn,
          outcome.end,
        ));
      }
    } finally {
      await archive.close();
    }
  }
}
