import fs from 'node:fs';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { accessError, ifThere, isGone } from '../archive/access.js';
import type { StoredSegment } from '../archive/segment-source.js';
import { type DecompressResult, decompressFile } from '../codec/codec.js';
import { decompressorOf } from '../codec/codecs.js';
import {
  CorruptObjectError,
  CorruptWalError,
  DiskFullError,
  FsyncError,
  type StorageError,
  TargetError,
} from '../errors.js';
import { fsyncDir, reason, storageError } from '../files/durable.js';
import { type FileSystem, grant, nodeFileSystem } from '../files/file-system.js';
import { MAX_SEGMENT_SIZE } from '../wal/file-name.js';

/** Bytes a read. */
const READ_SIZE = 1024 * 1024;
/** Bytes behind which the disk begins to write them, while more are being decompressed. */
const FLUSH_STEP = 4 * 1024 * 1024;
/** Bytes, compressed or not, up to which a file is decompressed at once. */
const ONE_STEP = 64 * 1024 * 1024;

/** `.walkeep-fetch.PID.TIME.tmp`, beside the target. */
const TEMPORARY = /^\.walkeep-fetch\.([0-9]+)\.[0-9a-z]+\.tmp$/;

/**
 * The file that a fetch makes: a temporary one in the target's directory, which is checked there
 * and gets the target's name once its content is on disk. Whatever ends the process before leaves
 * the dotfile at most, and the next fetch removes it.
 */
export class TargetFile {
  readonly #path: string;
  readonly #temporary: string;
  readonly #mode: number;
  #fd: number | undefined;
  /** Resolves when what was in the file at some moment is on disk. */
  #flush = Promise.resolve();

  private constructor(path: string, temporary: string, mode: number) {
    this.#path = path;
    this.#temporary = temporary;
    this.#mode = mode;
    this.#fd = fs.openSync(temporary, 'wx+', mode);
    grant(this.#fd, temporary, mode);
  }

  /** An empty one. @throws TargetError, DiskFullError */
  static create(path: string): TargetFile {
    const dir = dirname(path);
    const stamp = process.hrtime.bigint().toString(36);
    const temporary = join(dir, `.walkeep-fetch.${process.pid}.${stamp}.tmp`);
    try {
      removeLeftovers(dir);
      // As PostgreSQL's own: readable for the group if its directories are (common/file_perm.c).
      return new TargetFile(path, temporary, 0o600 | (fs.statSync(dir).mode & 0o040));
    } catch (e) {
      throw targetError('create file', temporary, e);
    }
  }

  /** Bytes in it. */
  get size(): number {
    return fs.fstatSync(this.#fd as number).size;
  }

  /**
   * Takes the content of another file, in the thread pool.
   * @throws ArchiveAccessError, DiskFullError
   */
  async copy(source: string): Promise<'gone' | undefined> {
    try {
      await promisify(fs.copyFile)(source, this.#temporary);
    } catch (e) {
      if (isGone(e)) return 'gone';
      const wrapped = storageError('write file', this.#temporary, e);
      throw wrapped instanceof DiskFullError ? wrapped : accessError('copy file', source, e);
    }
    // Copying gave it the mode of its source.
    fs.fchmodSync(this.#fd as number, this.#mode);
    this.flush();
    return undefined;
  }

  /** @throws TargetError, DiskFullError */
  write(bytes: Uint8Array, position: number): void {
    try {
      for (let done = 0; done < bytes.length; ) {
        const left = bytes.length - done;
        done += fs.writeSync(this.#fd as number, bytes, done, left, position + done);
      }
    } catch (e) {
      throw targetError('write file', this.#temporary, e);
    }
  }

  /** Cuts or extends with zeros. @throws TargetError, DiskFullError */
  resize(bytes: number): void {
    try {
      fs.ftruncateSync(this.#fd as number, bytes);
    } catch (e) {
      throw targetError('write file', this.#temporary, e);
    }
  }

  /** Reads back; the bytes there were, 0 at the end. @throws TargetError */
  read(bytes: Uint8Array, position: number, length = bytes.length): number {
    try {
      return fs.readSync(this.#fd as number, bytes, 0, length, position);
    } catch (e) {
      throw targetError('read file', this.#temporary, e);
    }
  }

  /** Begins to bring what is in it to disk while more comes or is checked: a head start for `commit`. */
  flush(): void {
    // A failure must not get lost: the kernel tells of it only once.
    this.#flush = this.#flush.then(() => promisify(fs.fdatasync)(this.#fd as number));
    this.#flush.catch(() => {});
  }

  /** Makes the content durable and puts it in place. @throws TargetError, FsyncError */
  async commit(): Promise<void> {
    try {
      await this.#flush;
      fs.fsyncSync(this.#fd as number);
    } catch (e) {
      const message = `could not fsync file "${this.#temporary}": ${reason(e as Error)}`;
      throw new FsyncError(message, { path: this.#temporary, cause: e });
    }
    moveToTarget(this.#temporary, this.#path);
    this.#close();
    await fsyncDir(dirname(this.#path));
  }

  /** Removes what was not put in place. */
  async discard(): Promise<void> {
    if (this.#fd === undefined) return;
    await this.#flush.catch(() => {});
    this.#close();
    fs.rmSync(this.#temporary, { force: true });
  }

  #close(): void {
    fs.closeSync(this.#fd as number);
    this.#fd = undefined;
  }
}

/** Renames to the target. @throws TargetError */
export function moveToTarget(from: string, to: string): void {
  try {
    fs.renameSync(from, to);
  } catch (e) {
    throw targetError('rename file', from, e);
  }
}

function targetError(action: string, path: string, cause: unknown): StorageError {
  const wrapped = storageError(action, path, cause);
  if (wrapped instanceof DiskFullError) return wrapped;
  return new TargetError(wrapped.message, { path, cause });
}

/** Removes what fetches that were killed left behind. */
function removeLeftovers(dir: string): void {
  for (const name of fs.readdirSync(dir)) {
    const pid = Number(TEMPORARY.exec(name)?.[1]);
    if (pid > 0 && !isAlive(pid)) fs.rmSync(join(dir, name), { force: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (e) {
    return (e as NodeJS.ErrnoException).code !== 'ESRCH';
  }
}

/** Why a stored segment cannot be served: it is gone again, or what is wrong with it. */
export type Problem = 'gone' | CorruptWalError;

/** A copy of a stored segment on its way to the target's side, unchecked. */
export class UncheckedCopy {
  readonly file: TargetFile;
  /**
   * Resolves when all is there, or with why that cannot be: it was renamed, it cannot be
   * decompressed, it is larger than any segment.
   * @throws ArchiveAccessError, TargetError, DiskFullError
   */
  readonly done: Promise<Problem | undefined>;
  /** What was read of it before `done` may have been written anew. */
  restarted = false;
  #filled = 0;
  #over = false;
  #wake: (() => void)[] = [];

  /** @param partial it may be growing, and may be cut where its writer ended */
  constructor(source: StoredSegment, target: string, partial: boolean) {
    this.file = TargetFile.create(target);
    this.done = this.#fill(source, partial).finally(() => {
      this.#over = true;
      this.#tell();
    });
    // Who reads along hears of it later.
    this.done.catch(() => {});
  }

  /**
   * Resolves when there are more than `bytes` from the start on, or will be no more; gives how
   * many there are.
   */
  async beyond(bytes: number): Promise<number> {
    while (this.#filled <= bytes && !this.#over) {
      await new Promise<void>((resolve) => this.#wake.push(resolve));
    }
    return this.#filled;
  }

  /** Removes what was not put in place. */
  async discard(): Promise<void> {
    await this.done.catch(() => {});
    await this.file.discard();
  }

  async #fill(source: StoredSegment, partial: boolean): Promise<Problem | undefined> {
    const problem = await this.#take(source, partial);
    this.#filled = this.file.size;
    return problem;
  }

  async #take(source: StoredSegment, partial: boolean): Promise<Problem | undefined> {
    const { path, compression, inStore } = source;
    if (inStore) return this.#receive(source);
    if (compression !== 'none') return this.#decompress(source, partial);
    if (partial) return copyBackwards(path, this.file);
    return tooLarge(path, await source.size()) ?? this.file.copy(path);
  }

  /** Behind what is there. */
  #append(bytes: Uint8Array): void {
    this.file.write(bytes, this.#filled);
    const before = this.#filled;
    this.#filled += bytes.length;
    if (Math.floor(before / FLUSH_STEP) < Math.floor(this.#filled / FLUSH_STEP)) this.file.flush();
    this.#tell();
  }

  #tell(): void {
    for (const wake of this.#wake.splice(0)) wake();
  }

  async #receive(source: StoredSegment): Promise<Problem | undefined> {
    try {
      for await (const piece of source.bytes(MAX_SEGMENT_SIZE + 1)) this.#append(piece);
    } catch (e) {
      if (isGone(e, source.path)) return 'gone';
      if (!(e instanceof CorruptObjectError)) throw e;
      return new CorruptWalError(`"${source.path}" is damaged: ${e.message}`, {
        path: source.path,
        cause: e,
      });
    }
    this.file.flush();
    return tooLarge(source.path, this.#filled);
  }

  async #decompress(source: StoredSegment, partial: boolean): Promise<Problem | undefined> {
    const { path, compression } = source;
    const { decompressAtOnce } = await decompressorOf(compression);
    const append = (bytes: Uint8Array): void => this.#append(bytes);
    let result: 'complete' | 'uncertain' = 'uncertain';
    if (decompressAtOnce && !partial && (await source.size()) <= ONE_STEP) {
      const stored = ifThere('read file', path, () => fs.readFileSync(path));
      if (stored === undefined) return 'gone';
      result = await decompressAtOnce(stored, append, ONE_STEP);
    }
    if (result === 'uncertain') {
      this.restarted = this.#filled > 0;
      this.#filled = 0;
      const problem = await this.#decompressCarefully(source, partial);
      if (problem) return problem;
    }
    this.file.flush();
    return undefined;
  }

  async #decompressCarefully(
    source: StoredSegment,
    partial: boolean,
  ): Promise<Problem | undefined> {
    const { path, compression } = source;
    let failure: unknown;
    const append = (bytes: Uint8Array): void => {
      try {
        this.#append(bytes);
      } catch (e) {
        failure = e;
        throw e;
      }
    };
    let result: DecompressResult;
    try {
      // Whatever can be decompressed, up to one byte more than any segment has.
      const limit = MAX_SEGMENT_SIZE + 1;
      result = await decompressFile(path, compression, append, { limit, fs: AT_ONCE });
    } catch (e) {
      // The target's disk is full, say: nothing that the archive is to blame for.
      if (failure) throw failure;
      if (isGone(e)) return 'gone';
      throw accessError('read file', path, e);
    }
    if (this.restarted) this.file.resize(this.#filled);
    const problem = tooLarge(path, this.#filled);
    if (problem || result.end === 'complete' || partial) return problem;
    const why = result.problem ?? 'it ends before its end';
    return new CorruptWalError(`could not decompress "${path}": ${why}`, { path });
  }
}

function tooLarge(path: string, size: number): CorruptWalError | undefined {
  if (size <= MAX_SEGMENT_SIZE) return undefined;
  return new CorruptWalError(`"${path}" is larger than any WAL segment`, { path });
}

/**
 * Copies a plain file that may be growing, piece by piece from its end to its start: what a later
 * piece was seen to hold was written after all that is in the earlier ones, so the whole is a
 * state that the file once had.
 */
function copyBackwards(path: string, file: TargetFile): Problem | undefined {
  const fd = ifThere('open file', path, () => fs.openSync(path, 'r'));
  if (fd === undefined) return 'gone';
  const buffer = Buffer.allocUnsafeSlow(READ_SIZE);
  try {
    const size = ifThere('stat file', path, () => fs.fstatSync(fd).size);
    const problem = size === undefined ? 'gone' : tooLarge(path, size);
    if (size === undefined || problem) return problem;
    file.resize(size);
    for (let end = size; end > 0; ) {
      const start = Math.max(0, end - READ_SIZE);
      for (let at = start; at < end; ) {
        const n = ifThere('read file', path, () => fs.readSync(fd, buffer, 0, end - at, at));
        // Shortened meanwhile: not the file that was found.
        if (!n) return 'gone';
        file.write(buffer.subarray(0, n), at);
        at += n;
      }
      end = start;
    }
    return undefined;
  } finally {
    fs.closeSync(fd);
  }
}

/** Nothing else is waiting for this thread: a turn of the thread pool would be lost time. */
export const AT_ONCE: FileSystem = {
  ...nodeFileSystem,
  open: async (path, flags, mode) => fs.openSync(path, flags, mode),
  read: async (fd, buffer, length, position) => fs.readSync(fd, buffer, 0, length, position),
  close: async (fd) => fs.closeSync(fd),
};
