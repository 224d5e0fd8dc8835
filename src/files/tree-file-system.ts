import fs from 'node:fs';
import fsp from 'node:fs/promises';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import {
  entryOf,
  type FileSystem,
  grantMode,
  nodeFileSystem,
  OPEN_DIRECTORY,
} from './file-system.js';
import { linkAnew } from './hard-link.js';
import { giveDirectory } from './owner.js';

/** What of a name, or of an open file, is looked at. */
export interface FileStat {
  kind: 'file' | 'link' | 'directory' | 'other';
  /** Bytes. */
  size: number;
  /** Whether its group may read it. */
  groupReads?: boolean;
  /** When the content was changed last, in nanoseconds since 1970. */
  mtimeNs: bigint;
  /** Names that it has. */
  links: number;
  /** Which file it is, as long as it is there. */
  id: string;
}

/**
 * What a tree of directories takes beyond the calls on the files of one. Its names are what they are
 * themselves: `readdir` follows no link. Throws Node's errors.
 */
export interface TreeFileSystem extends FileSystem {
  /** The name itself and not what it leads to; undefined if there is none. */
  stat(path: string): Promise<FileStat | undefined>;
  fstat(fd: number): Promise<FileStat>;
  /** False if something has the name already. */
  mkdir(path: string, mode: number): Promise<boolean>;
  /** Only one that is empty. */
  rmdir(path: string): Promise<void>;
  link(from: string, to: string): ReturnType<typeof linkAnew>;
}

function seen(stats: fs.BigIntStats): FileStat {
  return {
    kind: stats.isFile()
      ? 'file'
      : stats.isDirectory()
        ? 'directory'
        : stats.isSymbolicLink()
          ? 'link'
          : 'other',
    size: Number(stats.size),
    groupReads: (Number(stats.mode) & 0o040) !== 0,
    mtimeNs: stats.mtimeNs,
    links: Number(stats.nlink),
    id: `${stats.dev}:${stats.ino}`,
  };
}

const fstat = promisify(fs.fstat) as (
  fd: number,
  options: { bigint: true },
) => Promise<fs.BigIntStats>;

/** Gives a directory that was just made the bits that the umask took. */
function widen(path: string, mode: number): void {
  const fd = fs.openSync(path, OPEN_DIRECTORY | fs.constants.O_NOFOLLOW);
  try {
    grantMode(fd, mode);
  } finally {
    fs.closeSync(fd);
  }
}

export const nodeTreeFileSystem: TreeFileSystem = {
  ...nodeFileSystem,
  // What of a tree is removed, or has something else put in its place, is the name itself.
  readdir: async (path) => (await fsp.readdir(path, { withFileTypes: true })).map(entryOf),
  stat: (path) =>
    fsp.lstat(path, { bigint: true }).then(seen, (e: NodeJS.ErrnoException) => {
      if (e.code === 'ENOENT' || e.code === 'ENOTDIR') return undefined;
      throw e;
    }),
  fstat: async (fd) => seen(await fstat(fd, { bigint: true })),
  mkdir: (path, mode) =>
    fsp.mkdir(path, { mode }).then(
      () => {
        if (mode & 0o070) widen(path, mode);
        giveDirectory(path);
        return true;
      },
      (e: NodeJS.ErrnoException) => {
        if (e.code === 'EEXIST') return false;
        throw e;
      },
    ),
  rmdir: fsp.rmdir,
  link: linkAnew,
};

/** Makes a directory, and those on the way to it. Throws Node's errors. */
export async function makeDirectories(path: string, mode: number): Promise<void> {
  // A link to one is one.
  if (await nodeTreeFileSystem.stat(`${path}/.`)) return;
  if (dirname(path) !== path) await makeDirectories(dirname(path), mode);
  if (await nodeTreeFileSystem.mkdir(path, mode)) return;
  // Somebody else has made it, or the name is taken by what is none; this says what is wrong then.
  await fsp.access(`${path}/.`);
}
