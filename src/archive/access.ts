import fs from 'node:fs';
import { join } from 'node:path';
import {
  ArchiveAccessError,
  type ErrorDetails,
  StorageError,
  SystemIdentifierError,
} from '../errors.js';
import { reason } from '../files/durable.js';
import { COMPRESSIONS, type Compression, storedNames, unreadableFormOf } from '../wal/file-name.js';

/** A failed call on the archive as the error it means. */
export function accessError(action: string, path: string, cause: unknown): Error {
  const root = causeOf(cause);
  // A defect, or an answer that was found while reading.
  if (root.code === undefined || root.syscall === undefined) return cause as Error;
  const details: ErrorDetails = { path, cause: root };
  return new ArchiveAccessError(`could not ${action} "${path}": ${reason(root)}`, details);
}

/** True if a call failed because a file that was there is gone again: a receiver renamed it, say. */
export function isGone(cause: unknown): boolean {
  return ['ENOENT', 'ESTALE'].includes(causeOf(cause).code ?? '');
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

/** A segment's file in the archive, or beside the target. */
export interface StoredSegment {
  path: string;
  compression: Compression;
  /** Bytes on disk. */
  size: number;
}

/** The files of a segment that are there now, best first. @throws ArchiveAccessError */
export function findStored(directory: string, base: string, partial: boolean): StoredSegment[] {
  return storedNames(base, partial).flatMap((name, i) => {
    const path = join(directory, name);
    const stat = onArchive('stat file', path, () => fs.statSync(path, { throwIfNoEntry: false }));
    return stat?.isFile() ? [{ path, compression: COMPRESSIONS[i]!, size: stat.size }] : [];
  });
}

/**
 * Refuses to take a name for absent that is there but is no file: a link to a disk that is not
 * mounted, a fifo. "Not there" would end recovery. @throws ArchiveAccessError
 */
export function refuseIrregular(directory: string, base: string, partial: boolean): void {
  for (const name of storedNames(base, partial)) {
    const path = join(directory, name);
    const stat = onArchive('stat file', path, () => fs.lstatSync(path, { throwIfNoEntry: false }));
    if (!stat || stat.isFile()) continue;
    throw new ArchiveAccessError(`"${path}" is there, but no file that could be read`, {
      path,
      hint: 'See what it is: a link must lead to a file, on a disk that is mounted.',
    });
  }
}

/** The names in the archive. @throws ArchiveAccessError */
export function listArchive(directory: string): string[] {
  try {
    return fs.readdirSync(directory);
  } catch (e) {
    throw unreachable(directory, e);
  }
}

/** @throws ArchiveAccessError if the directory itself is not there or closed to us */
export function requireArchive(directory: string): void {
  try {
    fs.closeSync(fs.openSync(directory, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY));
  } catch (e) {
    throw unreachable(directory, e);
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

function unreachable(directory: string, cause: unknown): ArchiveAccessError {
  const why = reason(cause as NodeJS.ErrnoException);
  return new ArchiveAccessError(`could not open directory "${directory}": ${why}`, {
    path: directory,
    cause,
  });
}

/**
 * Refuses to say anything of a file that is there under a name with an end that is not known: it
 * may be compressed or encrypted, or still be copied.
 * @param base the name without what may stand behind it
 * @throws ArchiveAccessError
 */
export function refuseUnreadableForm(directory: string, base: string): void {
  const name = listArchive(directory).find(
    (name) => name !== base && name.startsWith(base) && isUnreadable(name, base),
  );
  if (name === undefined) return;
  const path = join(directory, name);
  throw new ArchiveAccessError(`"${path}" may hold ${base}, in a form that cannot be read`, {
    path,
    hint: 'Put it there plain, or compressed with gzip, lz4 or zstd; or move what it is not away.',
  });
}

/** Behind the whole name of a backup history file nothing is known. */
function isUnreadable(name: string, base: string): boolean {
  return base.endsWith('.backup') || unreadableFormOf(name) === base;
}
