import { lstat, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { DirectoryLockedError } from '../errors.js';
import { storageError } from './durable.js';
import {
  isEmptyDirectory,
  putLock,
  readIdentity,
  removeLock,
  renameLock,
  writeIdentity,
} from './lock-file.js';
import {
  type HeldSocket,
  holdAbstractSocket,
  holdSocketFile,
  isSocketHeld,
} from './lock-socket.js';
import { liveness, ownIdentity, type ProcessIdentity } from './process-identity.js';

/** The lock's file name. While locks change hands there are names that begin with it and a dot. */
export const LOCK_FILE = '.walkeep-lock';

/** Milliseconds between two looks at a held lock. */
const POLL = 100;
/** Milliseconds after which what a crash left behind of a lock changing hands is removed. */
const LEFTOVER_AGE = 60_000;

/** A directory that no other receiver writes to. */
export interface DirectoryLock {
  /**
   * Removes what it has in the directory: killed behind that it leaves nothing there. On Linux other
   * processes of this network namespace are kept out all the same until `release`.
   */
  leaveNoName(): Promise<void>;
  /** Gives the directory free. Calling it again does nothing. */
  release(): Promise<void>;
}

/** Someone else holds the lock; undefined if its file does not say who. */
interface Held {
  holder: ProcessIdentity | undefined;
  detail?: string;
}

/**
 * Keeps every other receiver out of a directory: by a lock file that names its owner, and on Linux
 * by an abstract unix socket. A lock is taken over only from an owner that is provably dead, see
 * `liveness`; of several processes that want to, one succeeds. A held lock is waited for during
 * `graceMs`, since a service manager may start the next process before the last one is gone.
 * @throws DirectoryLockedError if it is still held then
 * @throws StorageError if the lock file cannot be made
 * @throws the signal's reason if that aborts the wait
 */
export async function acquireDirectoryLock(
  dir: string,
  options: { graceMs?: number; signal?: AbortSignal } = {},
): Promise<DirectoryLock> {
  const { graceMs = 3000, signal } = options;
  const deadline = performance.now() + graceMs;
  for (;;) {
    signal?.throwIfAborted();
    const result = await Attempt.run(dir);
    if ('release' in result) return result;
    if (performance.now() >= deadline) throw lockedError(dir, result);
    await delay(POLL, undefined, { signal }).catch((e) => {
      throw signal?.reason ?? e;
    });
  }
}

/**
 * Who holds the lock of a directory, as far as can be seen without trying for it; undefined if
 * nobody does. `elsewhere`: a process that cannot be looked at from here is named in it.
 */
export async function readLockHolder(
  dir: string,
): Promise<{ pid: number; host: string; state: 'alive' | 'elsewhere' } | undefined> {
  const holder = await readIdentity(join(dir, LOCK_FILE));
  if (!holder) return undefined;
  const state = await holderState(dir, holder, await ownIdentity());
  return state === 'dead' ? undefined : { pid: holder.pid, host: holder.host, state };
}

async function holderState(dir: string, holder: ProcessIdentity, self: ProcessIdentity) {
  const state = await liveness(holder, self);
  // A container's processes cannot be seen from another one, its socket in the directory can.
  if (state !== 'elsewhere' || holder.bootId !== self.bootId) return state;
  const held = await isSocketHeld(dir, socketName(holder.token));
  return held === undefined ? 'elsewhere' : held ? 'alive' : 'dead';
}

/** A directory that is made here could be where a disk is not mounted. */
const HINTS: Readonly<Record<string, string>> = {
  ENOENT: 'Make it first, once its disk is mounted.',
  EACCES: 'Give it to the user that is to write there.',
};

/** One try to get the lock, with all that has to be undone if it fails. */
class Attempt {
  readonly #dir: string;
  readonly #self: ProcessIdentity;
  #guard: HeldSocket | undefined;
  /** In the directory. */
  #alive: HeldSocket | undefined;

  private constructor(dir: string, self: ProcessIdentity) {
    this.#dir = dir;
    this.#self = self;
  }

  static async run(dir: string): Promise<DirectoryLock | Held> {
    const attempt = new Attempt(dir, await ownIdentity());
    let result: 'won' | Held | undefined;
    try {
      result = await attempt.#acquire();
    } catch (e) {
      const { code = '' } = e as NodeJS.ErrnoException;
      throw storageError('lock directory', dir, e, HINTS[code]);
    } finally {
      await rm(attempt.#path('.tmp'), { force: true });
      if (result !== 'won') await attempt.#closeSockets();
    }
    if (result !== 'won') return result;
    let released: Promise<void> | undefined;
    return {
      leaveNoName: () => attempt.#removeNames(),
      release: () => {
        released ??= attempt.#release();
        return released;
      },
    };
  }

  async #acquire(): Promise<'won' | Held> {
    const { dev, ino } = await stat(this.#dir, { bigint: true });
    const guard = await holdAbstractSocket(`walkeep:${dev}:${ino}`);
    if (guard === 'taken') return { holder: await readIdentity(join(this.#dir, LOCK_FILE)) };
    this.#guard = guard;
    const found = await this.#look(join(this.#dir, LOCK_FILE));
    if (found && !('dead' in found)) return found;
    this.#alive = await holdSocketFile(this.#dir, socketName(this.#self.token));
    await writeIdentity(this.#path('.tmp'), this.#self);
    const result = await this.#take(join(this.#dir, LOCK_FILE));
    if (result === 'won') await this.#removeLeftovers();
    return result;
  }

  /**
   * Puts our identity at `path` if nothing is there or its owner is dead. Who wants to replace a
   * dead owner's file must first take a second lock in the same way, whose name is made of that
   * owner's token: so a file that was looked at a moment ago is never replaced after another
   * process did so, and a crash in between leaves one more lock with a dead owner.
   */
  async #take(path: string): Promise<'won' | Held> {
    for (;;) {
      if (await putLock(this.#path('.tmp'), path, this.#self)) return 'won';
      const found = await this.#look(path);
      if (found === undefined) {
        // With hard links nobody makes a directory of it: somebody put it there.
        if (await isEmptyDirectory(path)) return { holder: undefined, detail: nameless(path) };
        continue;
      }
      if (!('dead' in found)) return found;
      const { token } = found.dead;
      const claim = join(this.#dir, `${LOCK_FILE}.${token}`);
      const claimed = await this.#take(claim);
      if (claimed !== 'won') return claimed;
      if ((await readIdentity(path))?.token === token) {
        const replaced = await renameLock(claim, path);
        // A directory is not replaced by rename: it goes, and all may try for the place.
        if (!replaced) await removeLock(path);
        await rm(join(this.#dir, socketName(token)), { force: true });
        if (replaced) return 'won';
      }
      await removeLock(claim);
    }
  }

  /** Who holds the lock file at `path`; undefined if there is none (any more). */
  async #look(path: string): Promise<Held | { dead: ProcessIdentity } | undefined> {
    const holder = await readIdentity(path);
    if (!holder) {
      const there = (await exists(path)) && !(await isEmptyDirectory(path));
      return there ? { holder, detail: nameless(path) } : undefined;
    }
    const state = await holderState(this.#dir, holder, this.#self);
    if (state === 'dead') return { dead: holder };
    if (state === 'alive') return { holder };
    return { holder, detail: 'From here it cannot be seen whether that process still runs.' };
  }

  async #release(): Promise<void> {
    try {
      await this.#removeNames();
    } finally {
      await this.#closeSockets();
    }
  }

  async #removeNames(): Promise<void> {
    const path = join(this.#dir, LOCK_FILE);
    try {
      if ((await readIdentity(path))?.token === this.#self.token) await removeLock(path);
    } finally {
      await this.#closeAlive();
    }
  }

  async #closeSockets(): Promise<void> {
    await this.#closeAlive();
    const guard = this.#guard;
    this.#guard = undefined;
    await guard?.close();
  }

  async #closeAlive(): Promise<void> {
    const alive = this.#alive;
    this.#alive = undefined;
    await alive?.close();
  }

  async #removeLeftovers(): Promise<void> {
    for (const name of await readdir(this.#dir)) {
      if (!name.startsWith(`${LOCK_FILE}.`) || name.includes(this.#self.token)) continue;
      const path = join(this.#dir, name);
      const { mtimeMs } = await lstat(path).catch(() => ({ mtimeMs: Date.now() }));
      if (Date.now() - mtimeMs < LEFTOVER_AGE) continue;
      if (name.endsWith('.sock') && (await isSocketHeld(this.#dir, name)) !== false) continue;
      await rm(path, { recursive: true, force: true });
    }
  }

  #path(suffix: string): string {
    return join(this.#dir, `${LOCK_FILE}.${this.#self.token}${suffix}`);
  }
}

const socketName = (token: string) => `${LOCK_FILE}.${token}.sock`;

/** A link that leads nowhere is there too: a lock cannot be put in its place. */
const exists = (path: string) =>
  lstat(path).then(
    () => true,
    () => false,
  );

const nameless = (path: string) => `The file "${path}" does not say who made it.`;

function lockedError(dir: string, { holder, detail }: Held): DirectoryLockedError {
  const who = holder ? ` (pid ${holder.pid} on host ${holder.host})` : '';
  return new DirectoryLockedError(`directory "${dir}" is in use by another receiver${who}`, {
    path: dir,
    ...(detail === undefined ? {} : { detail }),
    hint: detail
      ? `If that receiver is gone for good, remove the file "${join(dir, LOCK_FILE)}".`
      : 'Stop that receiver first, or use another directory.',
  });
}
