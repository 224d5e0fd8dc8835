import fs from 'node:fs';
import fsp from 'node:fs/promises';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { fsyncDir, storageError } from '../files/durable.js';
import { CREATE_NEW } from '../files/file-system.js';
import { nodeTreeFileSystem, type TreeFileSystem } from '../files/tree-file-system.js';

/** Whom files are given to. */
export interface Owner {
  uid: number;
  gid: number;
}

/** What restoring takes beyond the calls on a tree of files. Throws Node's errors. */
export interface RestoreFileSystem extends TreeFileSystem {
  symlink(to: string, path: string): Promise<void>;
  /** Where a link leads. */
  readlink(path: string): Promise<string>;
  chmod(path: string, mode: number): Promise<void>;
  /** Makes an open file so long, whatever it was. */
  ftruncate(fd: number, size: number): Promise<void>;
  /** Of an open file. */
  fchown(fd: number, owner: Owner): Promise<void>;
  /** Of the name itself. */
  lchown(path: string, owner: Owner): Promise<void>;
  /**
   * Makes a whole small file in the calls of this thread: of a hundred thousand files the way to
   * other threads and back takes longer than the calls. Absent: it is made like any other.
   */
  makeSmallFile?(path: string, mode: number, content: Uint8Array, owner: Owner | undefined): void;
}

const fchown = promisify(fs.fchown);

export const nodeRestoreFileSystem: RestoreFileSystem = {
  ...nodeTreeFileSystem,
  symlink: fsp.symlink,
  readlink: (path) => fsp.readlink(path),
  chmod: fsp.chmod,
  ftruncate: promisify(fs.ftruncate),
  fchown: (fd, { uid, gid }) => fchown(fd, uid, gid),
  lchown: (path, { uid, gid }) => fsp.lchown(path, uid, gid),
  makeSmallFile: (path, mode, content, owner) => {
    const fd = nodeTreeFileSystem.openSync(path, CREATE_NEW, mode);
    try {
      if (owner) fs.fchownSync(fd, owner.uid, owner.gid);
      for (let at = 0; at < content.length; ) {
        at += fs.writeSync(fd, content, at, content.length - at, at);
      }
    } finally {
      fs.closeSync(fd);
    }
  },
};

/** Makes a directory and those on the way to it that are not there. @throws StorageError */
export async function makeDirectory(
  path: string,
  { mode, owner, fs }: { mode: number; owner: Owner | undefined; fs: RestoreFileSystem },
): Promise<void> {
  const missing: string[] = [];
  for (let at = path; at !== '' && at !== '/'; at = at.slice(0, at.lastIndexOf('/'))) {
    if (await fs.stat(at)) break;
    missing.unshift(at);
  }
  for (const one of missing) {
    try {
      await fs.mkdir(one, mode);
      await fs.chmod(one, mode);
      if (owner) await fs.lchown(one, owner);
    } catch (e) {
      throw storageError('create directory', one, e);
    }
    await fsyncDir(dirname(one), fs);
  }
}

/** Removes all that is in a directory, but for `keep`. Links are not followed. @throws StorageError */
export async function emptyDirectory(
  path: string,
  fs: RestoreFileSystem,
  keep: (name: string) => boolean = () => false,
): Promise<void> {
  try {
    for (const { name, kind } of await fs.readdir(path)) {
      if (keep(name)) continue;
      const one = `${path}/${name}`;
      if (kind === 'directory') {
        await emptyDirectory(one, fs);
        await fs.rmdir(one);
      } else await fs.unlink(one);
    }
  } catch (e) {
    throw storageError('remove files of directory', path, e);
  }
}
