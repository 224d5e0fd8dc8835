import {
  AuthenticationError,
  CorruptWalError,
  DiskFullError,
  ServerError,
  StandbyError,
  TlsError,
  type WalkeepError,
} from '../errors.js';

/** SQLSTATEs that say that a right, a setting or a name is wrong: waiting does not help. */
const SETTINGS = /^(28...|42...|0A...|3D...|55000|53300)$/;

/** Errors that are passing once a stream has run, though they end the process before. */
function passesOnceStreamed(error: WalkeepError): boolean {
  // A password or a certificate may be rotating, a dead walsender may still hold its place or our
  // slot, a standby may be about to be promoted.
  return (
    error instanceof ServerError ||
    error instanceof AuthenticationError ||
    error instanceof StandbyError ||
    error instanceof TlsError
  );
}

/**
 * Whether another connection may be tried after this error.
 * @param streamed a stream has run in this process
 */
export function mayRetry(error: WalkeepError, streamed: boolean): boolean {
  if (error.code === 'WK_WAL_REMOVED' || error instanceof CorruptWalError) return false;
  if (streamed) return error.retryable || passesOnceStreamed(error);
  if (error instanceof ServerError) return !SETTINGS.test(error.sqlstate);
  // Garbage from the first connection is no PostgreSQL; later it is a broken one.
  if (error.code === 'WK_PROTOCOL') return false;
  return error.retryable;
}

/** Delays between connections: exponential with jitter, so that receivers do not come in step. */
export class Backoff {
  private failures = 0;
  private readonly fixed: number | undefined;
  private readonly random: () => number;

  /** @param fixed milliseconds for every delay; absent: 0.1 s doubling up to 5 s. */
  constructor(fixed?: number, random: () => number = Math.random) {
    this.fixed = fixed;
    this.random = random;
  }

  reset(): void {
    this.failures = 0;
  }

  /** Milliseconds to wait now. A full disk is looked at again every few seconds. */
  next(error: WalkeepError): number {
    if (this.fixed !== undefined) return this.fixed;
    const ceiling = Math.min(5000, 100 * 2 ** this.failures);
    this.failures += 1;
    const base = error instanceof DiskFullError ? 2000 : ceiling;
    return Math.round(base * (0.5 + this.random() / 2));
  }
}
