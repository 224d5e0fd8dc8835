import { dirname } from 'node:path';
import { DiskFullError, FsyncError, StorageError, WalkeepError } from '../errors.js';
import {
  CREATE_NEW,
  type FileSystem,
  nodeFileSystem,
  OPEN_DIRECTORY,
  OPEN_EXISTING,
  OPEN_LINKED,
  OPEN_READ,
} from './file-system.js';

/** Wraps a failed file-system call in a typed error: no space passes, the rest does not. */
export function storageError(
  action: string,
  path: string,
  cause: unknown,
  hint?: string,
): WalkeepError {
  if (cause instanceof WalkeepError) return cause;
  const err = cause as NodeJS.ErrnoException;
  const message = `could not ${action} "${path}": ${reason(err)}`;
  if (err.code === 'ENOSPC' || err.code === 'EDQUOT') {
    return new DiskFullError(message, { path, cause });
  }
  return new StorageError(message, { path, cause, ...(hint === undefined ? {} : { hint }) });
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
  EFTYPE: 'Not a regular file',
  ECONNREFUSED: 'Connection refused',
  EADDRINUSE: 'Address already in use',
  EADDRNOTAVAIL: 'Cannot assign requested address',
};

/** strerror's words for an errno, as PostgreSQL's %m prints them. */
export function reason(err: NodeJS.ErrnoException): string {
  return (err.code && REASONS[err.code]) || err.message;
}

/** Makes the entries of a directory (creations, renames, removals) durable. */
export function fsyncDir(dir: string, fs: FileSystem = nodeFileSystem): Promise<void> {
  return fsyncPath(dir, OPEN_DIRECTORY, 'directory', fs);
}

/** Makes the content of an existing file durable. */
export function fsyncFile(path: string, fs: FileSystem = nodeFileSystem): Promise<void> {
  return fsyncPath(path, OPEN_EXISTING, 'file', fs);
}

/** The same of a file that a link may lead to. */
export function fsyncLinked(path: string, fs: FileSystem = nodeFileSystem): Promise<void> {
  return fsyncPath(path, OPEN_LINKED, 'file', fs);
}

async function fsyncPath(
  path: string,
  flags: number,
  what: 'directory' | 'file',
  fs: FileSystem,
): Promise<void> {
  const fd = await fs.open(path, flags, 0).catch((e) => {
    throw storageError(`open ${what}`, path, e);
  });
  try {
    await fs.fsync(fd);
  } catch (e) {
    throw fsyncError(path, e);
  } finally {
    await fs.close(fd);
  }
}

/**
 * Renames a file whose content is already synced and makes the new name durable
 * (common/file_utils.c, durable_rename). Both names are in one directory.
 */
export async function durableRename(
  from: string,
  to: string,
  fs: FileSystem = nodeFileSystem,
): Promise<void> {
  await fs.rename(from, to).catch((e) => {
    throw storageError('rename file', from, e);
  });
  await fsyncDir(dirname(to), fs);
}

/** Reads at a position until `into` is full or the file ends; gives how many bytes there were. */
export async function readFully(
  fs: FileSystem,
  fd: number,
  into: Uint8Array,
  position: number,
): Promise<number> {
  let done = 0;
  for (let n = -1; n !== 0 && done < into.length; done += n) {
    n = await fs.read(fd, into.subarray(done), into.length - done, position + done);
  }
  return done;
}

/**
 * Bytes of one write. Of a larger one Linux makes larger units of its cache, and on virtual machines
 * copying into those was measured at up to six times the CPU time.
 */
const WRITE = 256 * 1024;

/** Writes all of `data` at an offset of an open file. Throws Node's errors. */
export async function writeFully(
  fs: FileSystem,
  fd: number,
  data: Uint8Array,
  position: number,
): Promise<void> {
  for (let done = 0; done < data.length; ) {
    const n = await fs.writev(fd, [data.subarray(done, done + WRITE)], position + done);
    if (n === 0) throw new Error('wrote nothing');
    done += n;
  }
}

/**
 * Opens a new, empty file. Whatever has its name is removed and not written to: what a crash left,
 * or what somebody put there, a link to another file or a file that he keeps open.
 * Throws Node's errors.
 */
export async function createAnew(path: string, mode: number, fs: FileSystem): Promise<number> {
  await fs.unlink(path).catch((e: NodeJS.ErrnoException) => {
    if (e.code !== 'ENOENT') throw e;
  });
  return fs.open(path, CREATE_NEW, mode);
}

/**
 * Writes the first `size` bytes of a file anew and puts them in its place, synced; the caller syncs
 * the directory. After a failed fsync only this makes what is read also what is stored: the next
 * fsync of the old file would succeed and prove nothing.
 */
export async function storeAnew(
  path: string,
  temporary: string,
  size: number,
  options: { mode: number; fs: FileSystem },
): Promise<void> {
  const { mode, fs } = options;
  let from: number | undefined;
  let to: number | undefined;
  try {
    from = await fs.open(path, OPEN_READ, 0);
    to = await createAnew(temporary, mode, fs);
    const buffer = Buffer.alloc(Math.min(size, 1024 * 1024));
    for (let at = 0; at < size; ) {
      const n = await fs.read(from, buffer, Math.min(buffer.length, size - at), at);
      if (n === 0) throw new Error('shorter than before');
      await writeFully(fs, to, buffer.subarray(0, n), at);
      at += n;
    }
    await fs.fsync(to).catch((e) => {
      throw fsyncError(temporary, e);
    });
    await fs.rename(temporary, path);
  } catch (e) {
    throw storageError('write file', temporary, e);
  } finally {
    if (from !== undefined) await fs.close(from);
    if (to !== undefined) await fs.close(to);
  }
}

/**
 * Puts a whole small file in place so that after a crash it has either the old content or the
 * new: temporary file, fsync, rename, fsync of the directory.
 */
export async function writeFileDurably(
  path: string,
  data: Uint8Array | string,
  options: { mode?: number; temporary?: string; sync?: boolean; fs?: FileSystem } = {},
): Promise<void> {
  const { sync = true, fs = nodeFileSystem } = options;
  const temporary = options.temporary ?? `${path}.tmp`;
  const fd = await createAnew(temporary, options.mode ?? 0o600, fs).catch((e) => {
    throw storageError('create file', temporary, e);
  });
  try {
    await writeFully(fs, fd, Buffer.from(data as Uint8Array), 0).catch((e) => {
      throw storageError('write file', temporary, e);
    });
    if (sync) {
      await fs.fsync(fd).catch((e) => {
        throw fsyncError(temporary, e);
      });
    }
  } finally {
    await fs.close(fd);
  }
  if (sync) await durableRename(temporary, path, fs);
  else {
    await fs.rename(temporary, path).catch((e) => {
      throw storageError('rename file', temporary, e);
    });
  }
}
