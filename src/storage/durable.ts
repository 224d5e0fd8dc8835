import { constants, promises as fsp } from 'node:fs';
import { dirname } from 'node:path';
import { DiskFullError, FsyncError, StorageError, WalkeepError } from '../errors.js';

/** Wraps a failed file-system call in a typed error: no space passes, the rest does not. */
export function storageError(action: string, path: string, cause: unknown): WalkeepError {
  if (cause instanceof WalkeepError) return cause;
  const err = cause as NodeJS.ErrnoException;
  const message = `could not ${action} "${path}": ${reason(err)}`;
  if (err.code === 'ENOSPC' || err.code === 'EDQUOT') {
    return new DiskFullError(message, { path, cause, hint: 'Free space; it goes on by itself.' });
  }
  return new StorageError(message, { path, cause });
}

/** A failed fsync: nothing that was written since the last good one is known to be on disk. */
export function fsyncError(path: string, cause: unknown): WalkeepError {
  const err = cause as NodeJS.ErrnoException;
  // NFS and quotas report a full disk only here; the caller abandons this file and its positions.
  if (err.code === 'ENOSPC' || err.code === 'EDQUOT') {
    return new DiskFullError(`could not fsync file "${path}": ${reason(err)}`, { path, cause });
  }
  return new FsyncError(`could not fsync file "${path}": ${reason(err)}`, {
    path,
    cause,
    hint: 'The disk failed to store data; check it before starting again.',
  });
}

const REASONS: Record<string, string> = {
  ENOENT: 'No such file or directory',
  EACCES: 'Permission denied',
  EPERM: 'Operation not permitted',
  ENOSPC: 'No space left on device',
  EDQUOT: 'Disk quota exceeded',
  ENOTDIR: 'Not a directory',
  EISDIR: 'Is a directory',
  EEXIST: 'File exists',
  EIO: 'Input/output error',
  EROFS: 'Read-only file system',
  EMFILE: 'Too many open files',
  ELOOP: 'Too many levels of symbolic links',
};

/** strerror's words for an errno, as PostgreSQL's %m prints them. */
export function reason(err: NodeJS.ErrnoException): string {
  return (err.code && REASONS[err.code]) || err.message;
}

/** Makes the entries of a directory (creations, renames, removals) durable. */
export async function fsyncDir(dir: string): Promise<void> {
  const handle = await fsp.open(dir, constants.O_RDONLY | constants.O_DIRECTORY).catch((e) => {
    throw storageError('open directory', dir, e);
  });
  try {
    await handle.sync();
  } catch (e) {
    throw fsyncError(dir, e);
  } finally {
    await handle.close();
  }
}

/** Makes the content of an existing file durable. */
export async function fsyncFile(path: string): Promise<void> {
  const handle = await fsp.open(path, 'r+').catch((e) => {
    throw storageError('open file', path, e);
  });
  try {
    await handle.sync();
  } catch (e) {
    throw fsyncError(path, e);
  } finally {
    await handle.close();
  }
}

/**
 * Renames a file whose content is already synced and makes the new name durable
 * (common/file_utils.c, durable_rename). Both names are in one directory.
 */
export async function durableRename(from: string, to: string): Promise<void> {
  await fsp.rename(from, to).catch((e) => {
    throw storageError('rename file', from, e);
  });
  await fsyncDir(dirname(to));
}

/**
 * Puts a whole small file in place so that after a crash it has either the old content or the
 * new: temporary file, fsync, rename, fsync of the directory.
 */
export async function writeFileDurably(
  path: string,
  data: Uint8Array | string,
  options: { mode?: number; temporary?: string; sync?: boolean } = {},
): Promise<void> {
  const temporary = options.temporary ?? `${path}.tmp`;
  const sync = options.sync ?? true;
  const handle = await fsp.open(temporary, 'w', options.mode ?? 0o600).catch((e) => {
    throw storageError('create file', temporary, e);
  });
  try {
    await handle.writeFile(data).catch((e) => {
      throw storageError('write file', temporary, e);
    });
    if (sync) {
      await handle.sync().catch((e) => {
        throw fsyncError(temporary, e);
      });
    }
  } finally {
    await handle.close();
  }
  if (sync) await durableRename(temporary, path);
  else {
    await fsp.rename(temporary, path).catch((e) => {
      throw storageError('rename file', temporary, e);
    });
  }
}
