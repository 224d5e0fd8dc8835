import { dirname, join } from 'node:path';
import { StoreAccessError, StoreUncertainError } from '../../errors.js';
import { fsyncDir } from '../../files/durable.js';
import { OPEN_OWN } from '../../files/file-system.js';
import type { FileStat, TreeFileSystem } from '../../files/tree-file-system.js';
import { RESERVED } from '../key.js';
import type { Head } from '../store.js';
import { as, fileError } from './errors.js';
import type { StoreRoot } from './root.js';
import { belongsTo, decodeSidecar, type Sidecar, sidecarPath } from './sidecar.js';
import type { Staging } from './staging.js';

const PIECE = 256 * 1024;

/** The files of the objects below the root of a store, as they are found there. */
export class ObjectFiles {
  readonly #root: StoreRoot;
  readonly #fs: TreeFileSystem;
  readonly #staging: Staging;
  #insensitive: boolean | undefined;

  constructor(root: StoreRoot, staging: Staging) {
    this.#root = root;
    this.#fs = root.fs;
    this.#staging = staging;
  }

  /**
   * The path of a key, if the directories on the way are there; undefined if not.
   * @param last whether its own name must be just that too, where file systems do not tell cases
   * @throws StoreAccessError where a link is on the way: it may lead anywhere
   */
  async locate(key: string, last = true): Promise<string | undefined> {
    const parts = key.split('/');
    const exact = await this.tellsNoCases();
    let path = this.#root.path;
    for (const [i, part] of parts.entries()) {
      const isLast = i === parts.length - 1;
      if (exact && (last || !isLast) && !(await this.#hasExactly(path, part))) return undefined;
      path = join(path, part);
      if (isLast) break;
      const found = await this.#fs.stat(path).catch(as('look at', path, key));
      if (found?.kind === 'link') throw irregular(path, key);
      if (found?.kind !== 'directory') return undefined;
    }
    return path;
  }

  /** Whether the file system takes names that differ in case for the same. */
  async tellsNoCases(): Promise<boolean> {
    if (this.#insensitive !== undefined) return this.#insensitive;
    const look = async (name: string) => {
      const path = join(this.#root.path, name);
      return this.#fs.stat(path).catch(as('look at', path));
    };
    const own = await look(RESERVED);
    // A directory of others: their keys are in one case only.
    if (!own) return false;
    this.#insensitive = (await look(RESERVED.toUpperCase()))?.id === own.id;
    return this.#insensitive;
  }

  async #hasExactly(directory: string, name: string): Promise<boolean> {
    const entries = await this.#fs.readdir(directory).catch((e: NodeJS.ErrnoException) => {
      if (e.code === 'ENOENT' || e.code === 'ENOTDIR') return [];
      throw as('open directory', directory)(e);
    });
    return entries.some((entry) => entry.name === name);
  }

  async stat(key: string): Promise<FileStat | undefined> {
    const path = await this.locate(key);
    if (path === undefined) return undefined;
    const found = await this.#fs.stat(path).catch(as('look at', path, key));
    return found && isObject(found, path, key) ? found : undefined;
  }

  async headOf(key: string, stat: FileStat): Promise<Head> {
    await this.confirm(key, stat);
    const sidecar = await this.sidecar(key, stat);
    return {
      key,
      size: stat.size,
      modified: modifiedOf(stat),
      sha256: sidecar?.sha256,
      meta: sidecar?.meta ?? {},
    };
  }

  async sidecar(key: string, stat: FileStat): Promise<Sidecar | undefined> {
    const placed = async () => {
      const sidecar = decodeSidecar(await this.#root.readOwn(sidecarPath(this.#root, key)));
      return sidecar && belongsTo(sidecar, key, stat) ? sidecar : undefined;
    };
    const first = await placed();
    if (first || stat.links < 2) return first;
    // On its way to its place, where it may arrive in between.
    const staged = await this.#staging.sidecarOf(stat.id);
    return staged && belongsTo(staged, key, stat) ? staged : placed();
  }

  /** Makes durable the name of an object whose creator may not have come to that yet. */
  async confirm(key: string, stat: FileStat): Promise<void> {
    if (!(await this.#isUnderWay(stat))) return;
    await this.syncName(join(this.#root.path, key));
  }

  async #isUnderWay(stat: FileStat): Promise<boolean> {
    if (stat.links > 1) return this.#staging.has(stat.id);
    // A renamed one has no second name.
    return (
      (await this.#root.knownNaming()) === 'lock' && (await this.#staging.noted()) !== undefined
    );
  }

  async syncName(path: string): Promise<void> {
    await this.#root.makeDirectory(dirname(path));
    await fsyncDir(dirname(path), this.#fs);
  }

  /** Undefined: there is none. */
  async open(path: string, key: string): Promise<number | undefined> {
    try {
      return await this.#fs.open(path, OPEN_OWN, 0);
    } catch (e) {
      const { code } = e as NodeJS.ErrnoException;
      if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
      // A link that was not followed, or a socket.
      if (code === 'ELOOP' || code === 'ENXIO') throw irregular(path, key);
      throw fileError('open file', path, e, key);
    }
  }

  /** Opened anew, so that a body that nobody reads holds nothing. */
  async *read(key: string, path: string, id: string, start: number, end: number) {
    if (start === end) return;
    const fd = await this.open(path, key);
    if (fd === undefined) throw new StoreUncertainError(`"${key}" was removed`, { key, path });
    try {
      const stat = await this.#fs.fstat(fd).catch(as('look at', path, key));
      if (stat.id !== id)
        throw new StoreUncertainError(`"${key}" is another one now`, { key, path });
      for (let at = start; at < end; ) {
        const piece = Buffer.allocUnsafeSlow(Math.min(PIECE, end - at));
        const n = await this.#fs
          .read(fd, piece, piece.length, at)
          .catch(as('read file', path, key));
        if (n === 0) return;
        at += n;
        yield piece.subarray(0, n);
      }
    } finally {
      await this.#fs.close(fd).catch(() => {});
    }
  }
}

/** False for a directory: no object has that key. @throws StoreAccessError for what is not read */
export function isObject(stat: FileStat, path: string, key: string): boolean {
  if (stat.kind === 'file') return true;
  if (stat.kind === 'directory') return false;
  throw irregular(path, key);
}

export function irregular(path: string, key: string): StoreAccessError {
  return new StoreAccessError(`"${path}" is no file that could be read`, {
    path,
    key,
    hint: 'A store follows no links: what lies elsewhere would not be what was stored here.',
  });
}

export function modifiedOf({ mtimeNs }: FileStat): Date {
  return new Date(Number(mtimeNs / 1_000_000n));
}
