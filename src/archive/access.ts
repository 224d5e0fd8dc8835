import fs from 'node:fs';
import { join } from 'node:path';
import { type ErrorDetails, StorageError } from '../errors.js';
import { reason } from '../files/durable.js';
import { unreadableFormOf } from '../wal/file-name.js';

/**
 * The archive could not be asked: unreachable, not mounted, not readable. A state that may pass,
 * and no answer about what the archive holds.
 */
export class ArchiveAccessError extends StorageError {
  override readonly code = 'WK_ARCHIVE_ACCESS';
  override readonly retryable = true;
}

/** The file could not be put where PostgreSQL wants it. */
export class TargetError extends StorageError {
  override readonly code = 'WK_TARGET';
}

/** A file that was found is gone again: a receiver renamed it. Never leaves `fetchFile`. */
export class VanishedError extends Error {}

/** A failed call on the archive as the error it means; `ENOENT` of a file that was seen before. */
export function accessError(action: string, path: string, cause: unknown): Error {
  const root = causeOf(cause);
  if (root.code === 'ENOENT' || root.code === 'ESTALE') return new VanishedError(path);
  // A defect, or an answer that was found while reading.
  if (root.code === undefined || root.syscall === undefined) return cause as Error;
  const details: ErrorDetails = { path, cause: root };
  return new ArchiveAccessError(`could not ${action} "${path}": ${reason(root)}`, details);
}

/** The system call's error inside a typed one. */
function causeOf(error: unknown): NodeJS.ErrnoException {
  const { cause } = error as Error;
  return (error instanceof StorageError && cause ? cause : error) as NodeJS.ErrnoException;
}

/** Runs a call on a file of the archive that was there a moment ago. */
export function onArchive<T>(action: string, path: string, call: () => T): T {
  try {
    return call();
  } catch (e) {
    throw accessError(action, path, e);
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
