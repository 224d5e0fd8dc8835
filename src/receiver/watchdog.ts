import type { ReplicationConnection } from '../connection/connection.js';
import { TimeoutError } from '../errors.js';

/** What a connection is at; a running stream keeps its own time, it may be paused. */
export type Phase = 'command' | 'stream' | 'ending';

/** How long a server may take to end a stream once we were told to stop. */
const STOP_GRACE_MS = 3000;
const TICK_MS = 250;

/**
 * Breaks a connection off whose server is silent while an answer is due, and one that does not let
 * us stop: no command has a time limit of its own.
 */
export class Watchdog {
  /** Why the connection was broken off, if it was for silence. */
  error: TimeoutError | undefined;
  private phase: Phase = 'command';
  private since = performance.now();
  private readonly connection: ReplicationConnection;
  private readonly signal: AbortSignal;
  /** Milliseconds of silence; 0: no limit. */
  private readonly limit: number;
  private readonly timer: NodeJS.Timeout;
  private readonly onAbort = (): void => {
    if (this.phase === 'command') this.connection.destroy();
    else this.since = performance.now();
  };

  /** @param receiveTimeout silence after which the server would be asked; given up at twice that */
  constructor(connection: ReplicationConnection, signal: AbortSignal, receiveTimeout: number) {
    this.connection = connection;
    this.signal = signal;
    this.limit = 2 * receiveTimeout;
    this.timer = setInterval(() => this.tick(), TICK_MS);
    signal.addEventListener('abort', this.onAbort, { once: true });
    if (signal.aborted) this.onAbort();
  }

  enter(phase: Phase): void {
    this.phase = phase;
    this.since = performance.now();
    if (phase === 'command' && this.signal.aborted) this.connection.destroy();
  }

  release(): void {
    clearInterval(this.timer);
    this.signal.removeEventListener('abort', this.onAbort);
  }

  private tick(): void {
    if (this.phase === 'stream') return;
    const now = performance.now();
    if (this.signal.aborted && now - this.since > STOP_GRACE_MS) this.connection.destroy();
    const silence = now - Math.max(this.since, this.connection.lastReceivedAt);
    if (this.limit === 0 || silence <= this.limit) return;
    this.error ??= new TimeoutError(
      `nothing was received from the server for ${(silence / 1000).toFixed(0)} seconds`,
      { hint: 'The server or the network may be dead.' },
    );
    this.connection.destroy();
  }
}
