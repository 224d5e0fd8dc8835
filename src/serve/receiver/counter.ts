import type { EventEmitter } from 'node:events';
import type { ReceiverEvents } from '../../receive/options.js';
import type { ReceiverCounts } from '../status.js';

/** Counts what a receiver tells of. */
export class Counter {
  readonly #reconnects: Record<string, number> = {};
  readonly #diverged: Record<string, number> = {};
  #receivedBytes = 0;
  /** Up to where what came is counted. */
  #counted: bigint | undefined;

  /** What the receiver does not count itself. */
  get counts(): Omit<ReceiverCounts, 'refused' | 'syncs'> {
    return {
      receivedBytes: this.#receivedBytes,
      reconnects: { ...this.#reconnects },
      diverged: { ...this.#diverged },
    };
  }

  follow(receiver: EventEmitter<ReceiverEvents>): void {
    receiver.on('start', ({ lsn }) => {
      this.#counted = lsn;
    });
    receiver.on('timeline', () => {
      // Where the next stream begins is not told: somewhere before.
      this.#counted = undefined;
    });
    receiver.on('progress', ({ received }) => {
      const before = this.#counted ?? received;
      if (received > before) this.#receivedBytes += Number(received - before);
      this.#counted = received;
    });
    receiver.on('disconnect', ({ error: { code }, retryIn }) => {
      if (retryIn === undefined) return;
      this.#reconnects[code] = (this.#reconnects[code] ?? 0) + 1;
    });
    receiver.on('diverged', ({ timeline, from, to }) => {
      this.#diverged[timeline] = Number(to - from);
    });
  }
}
