import {
  CorruptWalError,
  NotSupportedError,
  StorageError,
  StoreAccessError,
  SystemIdentifierError,
  WalkeepError,
} from '../errors.js';

const FIRST = 500;
const LONGEST = 60_000;

/** Milliseconds before the next try, after so many failures in a row; with jitter. */
export function retryDelay(failures: number, random: () => number = Math.random): number {
  const ceiling = Math.min(LONGEST, FIRST * 2 ** Math.max(0, failures - 1));
  return Math.round(ceiling * (0.5 + random() / 2));
}

/**
 * True for what may pass by itself, or be mended at the other end while we go on: a store that is
 * away, and also one that refuses us. Credentials run out and are renewed, a policy is corrected, a
 * bucket comes back: whoever mends that must not have to think of us, and the directory waits.
 */
export function mayPass(error: unknown): error is WalkeepError {
  return error instanceof WalkeepError && (error.retryable || error instanceof StoreAccessError);
}

/** What is wrong with a file of ours, rather than with a place. */
export function isLocal(error: unknown): error is WalkeepError {
  return (
    error instanceof CorruptWalError ||
    error instanceof SystemIdentifierError ||
    error instanceof NotSupportedError ||
    error instanceof StorageError
  );
}
