import { constants } from 'node:fs';
import { basename } from 'node:path';
import type { DirectoryEntry, FileKind, FileSystem } from '../../src/files/file-system.js';
import { gzipAtOnce } from './gzip-at-once.js';
import type { Random } from './random.js';
import type { Inode, SimulatedDisk } from './simulated-disk.js';

/** What happens instead of, or around, one call. */
export type CallFate =
  | { kind: 'errno'; code: string }
  | { kind: 'short' }
  | { kind: 'crash'; when: 'before' | 'after' };

/** Asked before every call; undefined lets it pass. */
export type Decide = (op: keyof FileSystem, name: string) => CallFate | undefined;

/** Thrown into the code of a process that is dead; nothing that it does counts any more. */
export class Killed extends Error {}

interface Descriptor {
  name: string;
  /** Undefined: the directory. */
  inode: Inode | undefined;
  append: boolean;
  /** Opened with O_DIRECT. */
  direct: boolean;
  /** Opened with O_DSYNC: a write is durable once it returns. */
  synced: boolean;
}

interface Queued {
  run: () => void;
  /** Done by the kernel although the process that asked is dead. */
  drain: () => void;
}

/**
 * The file-system calls of one process on a simulated disk with one directory. Asynchronous calls
 * wait in a queue until the scheduler completes them, in any order.
 */
export class SimulatedFs implements FileSystem {
  dead = false;
  calls = 0;
  /** Told of each write past the page cache, and if it is durable at once. */
  onDirectWrite: (synced: boolean) => void = () => {};
  private readonly disk: SimulatedDisk;
  private readonly random: Random;
  private readonly decide: Decide;
  private readonly descriptors = new Map<number, Descriptor>();
  private queue: Queued[] = [];

  constructor(disk: SimulatedDisk, random: Random, decide: Decide) {
    this.disk = disk;
    this.random = random;
    this.decide = decide;
  }

  /** Asynchronous calls that wait for completion. */
  get waiting(): number {
    return this.queue.length;
  }

  /** Completes one waiting call. */
  completeOne(): void {
    const [op] = this.queue.splice(this.random.below(this.queue.length), 1);
    op?.run();
  }

  /** The process ends here; calls under way may still reach the disk. */
  kill(): void {
    this.dead = true;
    for (const op of this.queue) if (this.random.chance(0.5)) op.drain();
    this.queue = [];
  }

  openSync = (path: string, flags: number, _mode: number): number =>
    this.now('openSync', path, () => this.doOpen(path, flags));
  closeSync = (fd: number): void =>
    this.now('closeSync', this.nameOf(fd), () => void this.descriptors.delete(this.known(fd)));
  readSync = (fd: number, buffer: Uint8Array, length: number, position: number): number =>
    this.now('readSync', this.nameOf(fd), () => this.doRead(fd, buffer, length, position));
  writevSync = (fd: number, buffers: readonly Uint8Array[], position: number): number =>
    this.now(
      'writevSync',
      this.nameOf(fd),
      (short, crash) => this.doWrite(fd, buffers, position, short, crash),
      fd,
    );
  ftruncateSync = (fd: number, size: number): void =>
    this.now('ftruncateSync', this.nameOf(fd), () =>
      this.inode(fd).truncate(size, this.disk.tick()),
    );
  fdatasyncSync = (fd: number): void =>
    this.now('fdatasyncSync', this.nameOf(fd), () => this.doSync(fd, this.disk.now));
  fsyncSync = (fd: number): void =>
    this.now('fsyncSync', this.nameOf(fd), () => this.doSync(fd, this.disk.now));
  renameSync = (from: string, to: string): void =>
    this.now('renameSync', to, () => this.doRename(from, to));
  unlinkSync = (path: string): void => this.now('unlinkSync', path, () => this.doUnlink(path));
  sizeSync = (path: string): number | undefined =>
    this.now('sizeSync', path, () => this.disk.names.get(basename(path))?.size);

  open = (path: string, flags: number, _mode: number): Promise<number> =>
    this.later('open', path, () => this.doOpen(path, flags));
  close = (fd: number): Promise<void> =>
    this.later('close', this.nameOf(fd), () => void this.descriptors.delete(this.known(fd)));
  size = (fd: number): Promise<number> =>
    this.later('size', this.nameOf(fd), () => this.inode(fd).size);
  read = (fd: number, buffer: Uint8Array, length: number, position: number): Promise<number> =>
    this.later('read', this.nameOf(fd), () => this.doRead(fd, buffer, length, position));
  readFile = (path: string): Promise<Buffer> =>
    this.later('readFile', path, () => Buffer.from(this.existing(path).content));
  writev = (fd: number, buffers: readonly Uint8Array[], position: number): Promise<number> =>
    this.later('writev', this.nameOf(fd), (short) => this.doWrite(fd, buffers, position, short));
  fdatasync = (fd: number): Promise<void> => this.syncLater('fdatasync', fd);
  fsync = (fd: number): Promise<void> => this.syncLater('fsync', fd);
  rename = (from: string, to: string): Promise<void> =>
    this.later('rename', to, () => this.doRename(from, to));
  unlink = (path: string): Promise<void> => this.later('unlink', path, () => this.doUnlink(path));
  readdir = (path: string): Promise<DirectoryEntry[]> =>
    this.later('readdir', path, () =>
      [...this.disk.names.keys()].map((name) => ({ name, kind: 'file' as const })),
    );

  kind = (path: string): Promise<FileKind | undefined> =>
    this.later('kind', path, () => (this.disk.names.has(basename(path)) ? 'file' : undefined));
  /** Compressing takes no time, reading and writing take as long as they like. */
  readonly zlib = gzipAtOnce;

  // --- the calls ---------------------------------------------------------------------------

  private doOpen(path: string, flags: number): number {
    let fd = 3;
    // The lowest free number, as a kernel gives it: a stale one hits another file.
    while (this.descriptors.has(fd)) fd += 1;
    const name = basename(path);
    if (flags & constants.O_DIRECTORY) {
      const none = { append: false, direct: false, synced: false };
      this.descriptors.set(fd, { name, inode: undefined, ...none });
      return fd;
    }
    let inode = this.disk.names.get(name);
    if (inode && flags & constants.O_EXCL) throw errno('EEXIST');
    if (!inode && !(flags & constants.O_CREAT)) throw errno('ENOENT');
    inode ??= this.disk.create(name);
    if (flags & constants.O_TRUNC) inode.truncate(0, this.disk.tick());
    this.descriptors.set(fd, {
      name,
      inode,
      append: (flags & constants.O_APPEND) !== 0,
      direct: (flags & constants.O_DIRECT) !== 0,
      synced: (flags & constants.O_DSYNC) !== 0,
    });
    return fd;
  }

  private doRead(fd: number, buffer: Uint8Array, length: number, position: number): number {
    const piece = this.inode(fd).content.subarray(position, position + length);
    buffer.set(piece);
    return piece.length;
  }

  private doWrite(
    fd: number,
    buffers: readonly Uint8Array[],
    position: number,
    short: boolean,
    crash = false,
  ): number {
    const { append, direct, synced } = this.descriptor(fd);
    const inode = this.inode(fd);
    if (direct) {
      assertAligned(buffers, position);
      this.onDirectWrite(synced);
    }
    const all = buffers.length === 1 ? (buffers[0] as Uint8Array) : Buffer.concat(buffers);
    const taken = short ? all.subarray(0, this.random.size(all.length)) : all;
    const at = append ? inode.size : position;
    inode.write(taken, at, this.disk.tick());
    // Whoever dies within the call may leave any part of it, who returns from it leaves it durable.
    if (synced && !crash) inode.syncRange(at, at + taken.length);
    return taken.length;
  }

  private doSync(fd: number, upTo: number): void {
    const { inode } = this.descriptor(fd);
    if (inode) inode.sync(upTo);
    else this.disk.syncNames(upTo);
  }

  private doRename(from: string, to: string): void {
    const inode = this.existing(from);
    if (/^.walkeep-(new|spare)$/.test(basename(from))) inode.preallocated = true;
    this.disk.rename(basename(from), basename(to));
  }

  private doUnlink(path: string): void {
    this.existing(path);
    this.disk.unlink(basename(path));
  }

  /** Covers what was written when it was called, whenever it completes. */
  private syncLater(op: 'fdatasync' | 'fsync', fd: number): Promise<void> {
    const upTo = this.disk.now;
    return this.later(op, this.nameOf(fd), () => this.doSync(fd, upTo), fd);
  }

  // --- faults and time ---------------------------------------------------------------------

  private now<T>(
    op: keyof FileSystem,
    path: string,
    act: (short: boolean, crash: boolean) => T,
    fd?: number,
  ): T {
    if (this.dead) throw new Killed();
    this.calls += 1;
    const fate = this.decide(op, basename(path));
    if (fate?.kind === 'errno') {
      this.failSync(op, path, fd);
      throw errno(fate.code);
    }
    if (fate?.kind === 'crash' && fate.when === 'before') this.die();
    const result = act(fate?.kind === 'short', fate?.kind === 'crash');
    if (fate?.kind === 'crash') this.die();
    return result;
  }

  private later<T>(
    op: keyof FileSystem,
    path: string,
    act: (short: boolean) => T,
    fd?: number,
  ): Promise<T> {
    if (this.dead) return new Promise(() => {});
    return new Promise((resolve, reject) => {
      this.queue.push({
        run: () => {
          try {
            resolve(this.now(op, path, act, fd));
          } catch (e) {
            if (!(e instanceof Killed)) reject(e as Error);
          }
        },
        drain: () => {
          try {
            act(false);
          } catch {
            // Whoever would be told is dead.
          }
        },
      });
    });
  }

  /** A failed sync is reported once: what it should have stored counts as clean afterwards. */
  private failSync(op: keyof FileSystem, path: string, fd?: number): void {
    const synced = fd !== undefined && this.descriptors.get(fd)?.synced === true;
    if (!synced && !(op.startsWith('f') && op.includes('sync'))) return;
    const inode =
      fd === undefined ? this.disk.names.get(basename(path)) : this.descriptors.get(fd)?.inode;
    inode?.dropDirty(this.random);
  }

  private die(): never {
    this.kill();
    throw new Killed();
  }

  private descriptor(fd: number): Descriptor {
    const found = this.descriptors.get(fd);
    if (!found) throw errno('EBADF');
    return found;
  }

  private known(fd: number): number {
    this.descriptor(fd);
    return fd;
  }

  private nameOf(fd: number): string {
    return this.descriptors.get(fd)?.name ?? '';
  }

  private inode(fd: number): Inode {
    const { inode } = this.descriptor(fd);
    if (!inode) throw errno('EISDIR');
    return inode;
  }

  private existing(path: string): Inode {
    const inode = this.disk.names.get(basename(path));
    if (!inode) throw errno('ENOENT');
    return inode;
  }
}

export function errno(code: string): Error {
  return Object.assign(new Error(`simulated ${code}`), { code });
}

/** What direct I/O asks for; memory is as aligned as its buffer. Ours checks that itself. */
function assertAligned(buffers: readonly Uint8Array[], position: number): void {
  const numbers = [position, ...buffers.flatMap((b) => [b.byteOffset, b.length])];
  if (numbers.some((n) => n % 4096 !== 0)) throw new Error('direct I/O that is not aligned');
}
