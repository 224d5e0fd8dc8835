import type { ReplicationConnection } from '../connection/connection.js';
import type { ConnectionSettings } from '../connection/conninfo/settings.js';
import { TimeoutError } from '../errors.js';

/** Milliseconds for one host at first, where there are others to try. */
const NEXT_HOST = 5000;

/**
 * Settings with a limit for connecting: libpq waits for ever unless connect_timeout is set, and a
 * server that hangs would hang us too. Where several hosts are named a machine that is gone must not
 * keep us from the new primary; one that only is slow gets twice the time with each round that failed.
 */
export function patient(
  settings: ConnectionSettings,
  receiveTimeout: number,
  failedRounds = 0,
): ConnectionSettings {
  const limit = 2 * receiveTimeout;
  const first = NEXT_HOST * 2 ** Math.min(failedRounds, 20);
  const several = settings.targets.length > 1 && (limit === 0 || first < limit);
  return { ...settings, connectTimeout: settings.connectTimeout || (several ? first : limit) };
}

/**
 * Uses a connection under watch and ends it, however that goes.
 * @throws what `use` throws, or TimeoutError where the cause of that was a missing answer
 */
export async function overConnection<T>(
  opened: Promise<ReplicationConnection>,
  receiveTimeout: number,
  signal: AbortSignal,
  use: (connection: ReplicationConnection, watchdog: Watchdog) => Promise<T>,
): Promise<T> {
  const connection = await opened;
  const watchdog = new Watchdog(connection, signal, receiveTimeout);
  try {
    const result = await use(connection, watchdog);
    await connection.close();
    return result;
  } catch (e) {
    throw watchdog.error ?? e;
  } finally {
    watchdog.release();
    connection.destroy();
  }
}

/** What a connection is at; a running stream keeps its own time, it may be paused. */
export type Phase = 'command' | 'stream' | 'ending';

/** How long a server may take to end a stream once we were told to stop. */
const STOP_GRACE_MS = 3000;
const TICK_MS = 250;

/**
 * Breaks a connection off whose server does not complete an answer that is due, and one that does
 * not let us stop: no command has a time limit of its own. What trickles in is no excuse, every
 * answer is small.
 */
export class Watchdog {
  /** Why the connection was broken off, if it was for a missing answer. */
  error: TimeoutError | undefined;
  private phase: Phase = 'command';
  private since = performance.now();
  private readonly connection: ReplicationConnection;
  private readonly signal: AbortSignal;
  /** Milliseconds for an answer; 0: no limit. */
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
    const { commandSince, lastReceivedAt } = this.connection;
    // In between, we have work of our own to do.
    const due = this.phase === 'ending' ? this.since : commandSince;
    if (this.limit === 0 || due === undefined || now - due <= this.limit) return;
    const seconds = ((now - due) / 1000).toFixed(0);
    this.error ??= new TimeoutError(
      lastReceivedAt <= due
        ? `nothing was received from the server for ${seconds} seconds`
        : `the server did not complete its answer within ${seconds} seconds`,
      { hint: 'The server or the network may be dead.' },
    );
    this.connection.destroy();
  }
}
