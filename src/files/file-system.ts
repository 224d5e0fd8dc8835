import fs, { constants } from 'node:fs';
import fsp from 'node:fs/promises';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { promisify } from 'node:util';
import type { ZlibOptions } from 'node:zlib';
import { giveFile } from './owner.js';
import { readRegular } from './regular-file.js';

/**
 * The file-system calls of the receiving path, so that faults and power loss can be injected as
 * data. Calls that sit on the path of a commit are synchronous (a thread-pool hop costs more than
 * a short sync); the others are asynchronous. All throw Node's errno errors.
 */
export interface FileSystem {
  openSync(path: string, flags: number, mode: number): number;
  closeSync(fd: number): void;
  readSync(fd: number, buffer: Uint8Array, length: number, position: number): number;
  writevSync(fd: number, buffers: readonly Uint8Array[], position: number): number;
  ftruncateSync(fd: number, size: number): void;
  fdatasyncSync(fd: number): void;
  fsyncSync(fd: number): void;
  renameSync(from: string, to: string): void;
  unlinkSync(path: string): void;
  /** Size in bytes, or undefined if there is no such file. */
  sizeSync(path: string): number | undefined;
  open(path: string, flags: number, mode: number): Promise<number>;
  close(fd: number): Promise<void>;
  /** Size in bytes of an open file. */
  size(fd: number): Promise<number>;
  read(fd: number, buffer: Uint8Array, length: number, position: number): Promise<number>;
  /** Of a regular file, through no link unless that is asked for. */
  readFile(path: string, options?: { follow: boolean }): Promise<Buffer>;
  writev(fd: number, buffers: readonly Uint8Array[], position: number): Promise<number>;
  fdatasync(fd: number): Promise<void>;
  fsync(fd: number): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  unlink(path: string): Promise<void>;
  readdir(path: string): Promise<DirectoryEntry[]>;
  /** What has that name, itself and not what it leads to; undefined if nothing has. */
  kind(path: string): Promise<FileKind | undefined>;
  /**
   * Stands in for node:zlib, whose threads no schedule of a test directs. Absent: node:zlib. Other
   * than with the real file system nothing is given to a worker thread either.
   */
  readonly zlib?: GzipCodec;
}

export type FileKind = 'file' | 'link' | 'fifo' | 'other';

/** What of node:zlib reading and writing gzip takes. */
export interface GzipCodec {
  createGzip(options: ZlibOptions): Duplex;
  createInflateRaw(options: ZlibOptions): Duplex & { readonly bytesWritten: number };
}

/**
 * `file`: a regular file, `linked` if its name is a link that leads to one. `link`: one that leads to a
 * directory, or to nothing that can be seen now, as under a disk that is not mounted.
 */
export interface DirectoryEntry {
  name: string;
  kind: Exclude<FileKind, 'fifo'> | 'directory';
  linked?: true;
}

const read = promisify(fs.read) as (
  fd: number,
  buffer: Uint8Array,
  offset: number,
  length: number,
  position: number,
) => Promise<{ bytesRead: number }>;
const open = promisify(fs.open) as FileSystem['open'];
const fstat = promisify(fs.fstat) as (fd: number) => Promise<fs.Stats>;

/**
 * Gives a file the bits of `mode` that the umask took, or that were not wished for when it was begun:
 * whoever may read the server's files may read ours, as with pg_receivewal, which sets the umask.
 */
export function grantMode(fd: number, mode: number): void {
  if ((fs.fstatSync(fd).mode & mode) === mode) return;
  try {
    fs.fchmodSync(fd, mode);
  } catch {
    // A file system whose modes are fixed: the file is only less readable than wished for.
  }
}

/** What a file that was just made is to have. */
export function grant(fd: number, path: string, mode: number): void {
  grantMode(fd, mode);
  giveFile(fd, path);
}

/** What a name itself is, wherever a link leads. */
export function entryOf(entry: fs.Dirent): DirectoryEntry {
  const { name } = entry;
  if (entry.isFile()) return { name, kind: 'file' };
  if (entry.isDirectory()) return { name, kind: 'directory' };
  return { name, kind: entry.isSymbolicLink() ? 'link' : 'other' };
}

function seen(path: string, entry: fs.Dirent): DirectoryEntry | Promise<DirectoryEntry> {
  return entry.isSymbolicLink() ? followed(path, entry.name) : entryOf(entry);
}

async function followed(path: string, name: string): Promise<DirectoryEntry> {
  const target = await fsp.stat(join(path, name)).catch(() => undefined);
  if (target?.isFile()) return { name, kind: 'file', linked: true };
  return { name, kind: target && !target.isDirectory() ? 'other' : 'link' };
}

/** Of a file that was there only its mode is seen to: whose it is, others know. */
function made(fd: number, path: string, flags: number, mode: number): void {
  if (flags & constants.O_EXCL) grant(fd, path, mode);
  else if (flags & constants.O_CREAT) grantMode(fd, mode);
}

/** The real file system. */
export const nodeFileSystem: FileSystem = {
  openSync: (path, flags, mode) => {
    const fd = fs.openSync(path, flags, mode);
    made(fd, path, flags, mode);
    return fd;
  },
  closeSync: fs.closeSync,
  readSync: (fd, buffer, length, position) => fs.readSync(fd, buffer, 0, length, position),
  // A commit is one chunk: the plain call does less around the same system call.
  writevSync: (fd, buffers, position) =>
    buffers.length === 1
      ? fs.writeSync(fd, buffers[0] as Uint8Array, 0, (buffers[0] as Uint8Array).length, position)
      : fs.writevSync(fd, buffers, position),
  ftruncateSync: fs.ftruncateSync,
  fdatasyncSync: fs.fdatasyncSync,
  fsyncSync: fs.fsyncSync,
  renameSync: fs.renameSync,
  unlinkSync: fs.unlinkSync,
  sizeSync: (path) => fs.lstatSync(path, { throwIfNoEntry: false })?.size,
  open: async (path, flags, mode) => {
    const fd = await open(path, flags, mode);
    made(fd, path, flags, mode);
    return fd;
  },
  close: promisify(fs.close),
  size: async (fd) => (await fstat(fd)).size,
  read: async (fd, buffer, length, position) =>
    (await read(fd, buffer, 0, length, position)).bytesRead,
  readFile: (path, options = { follow: false }) => readRegular(path, options),
  writev: (fd, buffers, position) =>
    new Promise((resolve, reject) =>
      fs.writev(fd, buffers, position, (e, n) => (e ? reject(e) : resolve(n))),
    ),
  fdatasync: (fd) =>
    new Promise((resolve, reject) => fs.fdatasync(fd, (e) => (e ? reject(e) : resolve()))),
  fsync: promisify(fs.fsync),
  rename: fsp.rename,
  unlink: fsp.unlink,
  readdir: async (path) => {
    const entries = await fsp.readdir(path, { withFileTypes: true });
    const found = entries.map((entry) => seen(path, entry));
    // Of 100,000 names that are none to be waited for each would cost as much as all else.
    return found.some((one) => one instanceof Promise)
      ? Promise.all(found)
      : (found as DirectoryEntry[]);
  },
  kind: async (path) => {
    const found = await fsp.lstat(path).catch((e: NodeJS.ErrnoException) => {
      if (e.code !== 'ENOENT') throw e;
    });
    if (!found) return undefined;
    if (found.isFile()) return 'file';
    return found.isSymbolicLink() ? 'link' : found.isFIFO() ? 'fifo' : 'other';
  },
};

/** Create or open for reading and writing, following no symlink: a link is never one of ours. */
export const OPEN_SEGMENT = constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW;
/** Create anew; fails if the name exists. */
export const CREATE_NEW = OPEN_SEGMENT | constants.O_EXCL;
/** Never waits: a fifo of that name would hold a thread of the pool for ever. */
export const OPEN_READ = constants.O_RDONLY | constants.O_NONBLOCK;
/** The same of a file of ours, which is no link. */
export const OPEN_OWN = OPEN_READ | constants.O_NOFOLLOW;
/** A file of ours for reading and writing. */
export const OPEN_EXISTING = constants.O_RDWR | constants.O_NOFOLLOW | constants.O_NONBLOCK;
/** The same of one that may lie elsewhere, with a link in its place. */
export const OPEN_LINKED = constants.O_RDWR | constants.O_NONBLOCK;
export const OPEN_APPEND =
  constants.O_WRONLY | constants.O_APPEND | constants.O_NOFOLLOW | constants.O_NONBLOCK;
export const OPEN_DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY;
