import { randomUUID } from 'node:crypto';
import { dirname, join } from 'node:path';
import { FsyncError, StoreUncertainError, StoreUnsupportedError } from '../../errors.js';
import { fsyncDir, fsyncError } from '../../files/durable.js';
import { acquireDirectoryLock, type DirectoryLock } from '../../files/lock.js';
import type { TreeFileSystem } from '../../files/tree-file-system.js';
import { provenContent } from '../content.js';
import { isKey } from '../key.js';
import type { Content, Created, CreateOptions, Metadata } from '../store.js';
import { as, fileError } from './errors.js';
import type { ObjectFiles } from './object-files.js';
import type { StoreRoot } from './root.js';
import { encodeSidecar, type Sidecar, sidecarPath } from './sidecar.js';
import { metaOf, type Staging } from './staging.js';

/** Milliseconds that another process may take to give an object its name. */
const NAMING_PATIENCE = 30_000;
/** How often a directory may be removed before an object gets its name in it. */
const MOST_TRIES = 5;

/** Puts objects below the root of a store: whole, durable, and only where there is none. */
export class ObjectWriter {
  readonly #root: StoreRoot;
  readonly #fs: TreeFileSystem;
  readonly #staging: Staging;
  readonly #files: ObjectFiles;
  /** After a failed fsync: what this process knows to be durable proves nothing any more. */
  #broken: FsyncError | undefined;
  #cleaned: Promise<void> | undefined;
  /** One at a time, where naming takes the lock. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(root: StoreRoot, staging: Staging, files: ObjectFiles) {
    this.#root = root;
    this.#fs = root.fs;
    this.#staging = staging;
    this.#files = files;
  }

  /** @param signal ends it until the object gets its name */
  async create(
    key: string,
    content: Content,
    { meta = {}, token = randomUUID() }: CreateOptions,
    signal: AbortSignal,
  ): Promise<Created> {
    if (this.#broken) throw this.#broken;
    try {
      const naming = await this.#root.naming();
      this.#cleaned ??= this.#clean();
      await this.#cleaned;
      const own = { token, sha256: content.sha256 };
      const there = await this.#found(key, own);
      if (there) return there;
      const staged = await this.#stage(key, content, { meta, token }, signal);
      return naming === 'link'
        ? await this.#link(key, staged)
        : await this.#inTurn(() => this.#rename(key, staged));
    } catch (e) {
      if (e instanceof FsyncError) this.#broken = e;
      throw e;
    }
  }

  /** The answer if there is an object already; it is durable then, whoever made it. */
  async #found(key: string, own: Own): Promise<Created | undefined> {
    const path = join(this.#root.path, key);
    if (await this.#files.tellsNoCases()) await this.#refuseOtherCase(key, path);
    const stat = await this.#files.stat(key);
    if (!stat) return undefined;
    const fd = await this.#files.open(path, key);
    if (fd === undefined) return undefined;
    try {
      await this.#fs.fsync(fd).catch((e) => {
        throw fsyncError(path, e);
      });
    } finally {
      await this.#fs.close(fd).catch(() => {});
    }
    await this.#files.syncName(path);
    const found = await this.#files.headOf(key, stat);
    const there = await this.#files.sidecar(key, stat);
    // Other content with its token is not what this call was to store.
    const earlier = there?.token === own.token && there.sha256 === own.sha256;
    return earlier ? { created: true } : { created: false, found };
  }

  async #refuseOtherCase(key: string, path: string): Promise<void> {
    if ((await this.#files.locate(key)) !== undefined) return;
    const there = await this.#fs.stat(path).catch(as('look at', path, key));
    if (!there) return;
    throw new StoreUnsupportedError(`the file system has another name for "${key}"`, {
      key,
      path,
      detail: 'It takes names that differ in case for the same.',
    });
  }

  /** Writes an object and what is known of it, durably, but for a name that anybody looks for. */
  async #stage(
    key: string,
    content: Content,
    { meta, token }: { meta: Metadata; token: string },
    signal: AbortSignal,
  ): Promise<Staged> {
    const path = await this.#staging.name();
    const stat = await this.#root.writeNew(path, provenContent(key, content, signal));
    const { size, sha256 } = content;
    const sidecar = { key, size, mtimeNs: stat.mtimeNs, sha256, meta, token };
    try {
      await this.#root.writeNew(metaOf(path), [encodeSidecar(sidecar)]);
      const target = join(this.#root.path, key);
      await this.#makeWay(key, dirname(target));
      signal.throwIfAborted();
      return { path, sidecar };
    } catch (e) {
      await this.#staging.discard(path).catch(() => {});
      throw e;
    }
  }

  /** The directories of a key. */
  async #makeWay(key: string, directory: string): Promise<void> {
    await this.#root.makeDirectory(directory);
    // Nothing of them may be a link, or an object.
    if ((await this.#files.locate(key, false)) !== undefined) return;
    throw new StoreUnsupportedError(`an object stands where "${key}" needs a directory`, { key });
  }

  async #link(key: string, staged: Staged): Promise<Created> {
    const target = join(this.#root.path, key);
    let linked: Awaited<ReturnType<TreeFileSystem['link']>> | undefined;
    try {
      linked = await this.#inPlace(key, target, () => this.#linkOnce(staged.path, target, key));
    } finally {
      if (linked !== 'done') await this.#staging.discard(staged.path);
    }
    if (linked === 'no links') {
      throw new StoreUnsupportedError(`there are no hard links in "${this.#root.path}" from here`, {
        path: this.#root.path,
        hint: 'The store was made where there are; all its writers must have them.',
      });
    }
    if (linked === 'taken') return this.#lost(key, staged.sidecar);
    // Should this fail, the second name stays: it says to everybody that not all is done.
    await this.#finish(target, staged.path, key);
    await this.#staging.discard(staged.path);
    return { created: true };
  }

  /** Another may have removed the directory, which was empty, a moment ago: then once more. */
  async #inPlace<T>(key: string, target: string, act: () => Promise<T>): Promise<T> {
    for (let tries = 1; ; tries++) {
      try {
        return await act();
      } catch (e) {
        const isGone = (e as NodeJS.ErrnoException).code === 'ENOENT';
        if (!isGone || tries === MOST_TRIES) throw fileError('name file', target, e, key);
        this.#root.forget(dirname(target));
        await this.#makeWay(key, dirname(target));
      }
    }
  }

  /** A file server may have lost its own answer, and give that of a second try. */
  async #linkOnce(staged: string, target: string, key: string) {
    const linked = await this.#fs.link(staged, target).catch((e: NodeJS.ErrnoException) => e);
    if (linked === 'done' || linked === 'no links') return linked;
    const [own, there] = [await this.#fs.stat(staged), await this.#fs.stat(target)];
    if (own !== undefined && own.id === there?.id) return 'done';
    if (linked === 'taken') return linked;
    if (linked.code !== 'ENOENT') throw fileError('link file', staged, linked, key);
    if (own !== undefined) throw linked;
    // A clean-up elsewhere took us for dead.
    throw new StoreUncertainError(`"${staged}" was removed before it was stored`, { key });
  }

  /** What is left to do for an object that has its name. */
  async #finish(target: string, staged: string, key: string): Promise<void> {
    await fsyncDir(dirname(target), this.#fs);
    await this.#placeSidecar(staged, key);
  }

  async #placeSidecar(staged: string, key: string): Promise<void> {
    const path = sidecarPath(this.#root, key);
    await this.#root.makeDirectory(dirname(path));
    await this.#fs.rename(metaOf(staged), path).catch(as('rename file', metaOf(staged), key));
    await fsyncDir(dirname(path), this.#fs);
  }

  /** Where there are no hard links: one at a time looks, and renames. */
  async #rename(key: string, staged: Staged): Promise<Created> {
    const target = join(this.#root.path, key);
    let lock: DirectoryLock | undefined;
    try {
      lock = await this.#lock(key);
      await this.#finishNoted();
      const there = await this.#fs.stat(target).catch(as('look at', target, key));
      if (there) return await this.#lost(key, staged.sidecar);
      await this.#placeSidecar(staged.path, key);
      // Who sees the object before its name is durable sees this too.
      await this.#staging.note(key);
      await this.#inPlace(key, target, () => this.#fs.rename(staged.path, target));
      await fsyncDir(dirname(target), this.#fs);
      await this.#staging.removeNote();
      return { created: true };
    } finally {
      await this.#staging.discard(staged.path);
      await lock?.release();
    }
  }

  /** What the last one who had the lock did not come to. */
  async #finishNoted(): Promise<void> {
    const key = await this.#staging.noted();
    if (key === undefined) return;
    const path = join(this.#root.path, key);
    // It may not have come to the rename, nor to the end of the note.
    if (isKey(key) && (await this.#fs.stat(path))) await this.#files.syncName(path);
    await this.#staging.removeNote();
  }

  #lock(key: string): Promise<DirectoryLock> {
    return acquireDirectoryLock(this.#root.own(), { graceMs: NAMING_PATIENCE }).catch((cause) => {
      throw new StoreUncertainError(`could not get the lock to store "${key}"`, { key, cause });
    });
  }

  async #lost(key: string, own: Own): Promise<Created> {
    const found = await this.#found(key, own);
    if (found) return found;
    // Taken and gone again, or a directory.
    throw new StoreUncertainError(`"${key}" was there and is no object any more`, { key });
  }

  #inTurn<T>(act: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(act);
    this.#turn = turn.catch(() => {});
    return turn;
  }

  /** A failure is not the next object's: it is tried again at the next start. */
  async #clean(): Promise<void> {
    await this.#staging
      .clean(async (staged, sidecar) => {
        const target = join(this.#root.path, sidecar.key);
        const [one, other] = [await this.#fs.stat(staged), await this.#fs.stat(target)];
        if (!one || one.id !== other?.id) return;
        await this.#finish(target, staged, sidecar.key);
      })
      .catch((e) => {
        if (e instanceof FsyncError) throw e;
      });
  }
}

/** By what a call knows its own object again. */
type Own = Pick<Sidecar, 'token' | 'sha256'>;

interface Staged {
  path: string;
  sidecar: Sidecar;
}
