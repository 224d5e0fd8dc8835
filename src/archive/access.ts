import {
  ArchiveAccessError,
  type ErrorDetails,
  StorageError,
  SystemIdentifierError,
} from '../errors.js';
import { reason } from '../files/durable.js';

/** A failed call on the archive as the error it means. */
export function accessError(action: string, path: string, cause: unknown): Error {
  const root = causeOf(cause);
  // A defect, or an answer that was found while reading.
  if (root.code === undefined || root.syscall === undefined) return cause as Error;
  const details: ErrorDetails = { path, cause: root };
  return new ArchiveAccessError(`could not ${action} "${path}": ${reason(root)}`, details);
}

/** What it stood for may be on a disk that is not mounted: nobody knows that it is not there. */
export function danglingLink(path: string): ArchiveAccessError {
  return new ArchiveAccessError(`"${path}" is a link that leads to nothing`, {
    path,
    hint: 'See that the disk that it leads to is mounted.',
  });
}

/**
 * True if a call failed because a file that was there is gone again: a receiver renamed it, say. A
 * file server says that its handle is stale.
 * @param path only if it is this one
 */
export function isGone(error: unknown, path?: string): boolean {
  if (path !== undefined && (error as { path?: unknown }).path !== path) return false;
  return ['ENOENT', 'ESTALE'].includes(causeOf(error).code ?? '');
}

/** The system call's error inside a typed one. */
function causeOf(error: unknown): NodeJS.ErrnoException {
  const { cause } = error as Error;
  return (error instanceof StorageError && cause ? cause : error) as NodeJS.ErrnoException;
}

/** Tries of a call by name, which a file server may answer for the file that had the name before. */
const MOST_TRIES = 20;

/** Runs a call on a name in the archive. @throws ArchiveAccessError */
export function onArchive<T>(action: string, path: string, call: () => T): T {
  for (let tries = 1; ; tries++) {
    try {
      return call();
    } catch (e) {
      if (causeOf(e).code !== 'ESTALE' || tries === MOST_TRIES) throw accessError(action, path, e);
    }
  }
}

/**
 * Runs a call on a file of the archive that was there a moment ago; undefined if it is gone again.
 * @throws ArchiveAccessError
 */
export function ifThere<T>(action: string, path: string, call: () => T): T | undefined {
  try {
    return call();
  } catch (e) {
    if (isGone(e)) return undefined;
    throw accessError(action, path, e);
  }
}

/** @throws SystemIdentifierError unless both are known to be the same or one is unknown */
export function requireSameCluster(
  path: string,
  expected: bigint | undefined,
  actual: bigint | undefined,
): void {
  if (expected === undefined || actual === undefined || expected === actual) return;
  throw new SystemIdentifierError(`"${path}" holds WAL of another cluster`, {
    path,
    expected: String(expected),
    actual: String(actual),
    detail: `System identifier ${actual}; this server's is ${expected}.`,
    hint: 'Give the archive of the cluster that is to be recovered.',
  });
}
