import fs from 'node:fs';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { accessError, TargetError } from '../archive/access.js';
import { DiskFullError, FsyncError, type StorageError } from '../errors.js';
import { fsyncDir, reason, storageError } from '../files/durable.js';
import { grantMode } from '../files/file-system.js';

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
    grantMode(this.#fd, mode);
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
   * @throws ArchiveAccessError, VanishedError, DiskFullError
   */
  async copy(source: string): Promise<void> {
    try {
      await promisify(fs.copyFile)(source, this.#temporary);
    } catch (e) {
      const wrapped = storageError('write file', this.#temporary, e);
      throw wrapped instanceof DiskFullError ? wrapped : accessError('copy file', source, e);
    }
    // Copying gave it the mode of its source.
    fs.fchmodSync(this.#fd as number, this.#mode);
    this.flush();
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
