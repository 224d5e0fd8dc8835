import { randomUUID } from 'node:crypto';
import { dirname, join } from 'node:path';
import { StoreAccessError, StoreUnsupportedError } from '../../errors.js';
import { fsyncDir, fsyncError, readFully, writeFully } from '../../files/durable.js';
import { CREATE_NEW, OPEN_OWN } from '../../files/file-system.js';
import type { TreeFileSystem } from '../../files/tree-file-system.js';
import { parseHistoryFileName, parseStoredName } from '../../wal/file-name.js';
import { RESERVED } from '../key.js';
import { as, fileError } from './errors.js';

/** Says that the directory is a store, and how objects get their names in it. */
const MARKER = 'store.json';
const LEDGER = '.walkeep-ledger';
/** How often a directory may be removed while one is made in it. */
const MOST_TRIES = 5;

/**
 * How an object gets its name: `link` where there are hard links, else by a rename that one at a
 * time may do. All writers of a directory do the same, else one could replace what another made.
 */
export type Naming = 'link' | 'lock';

export interface StoreRootOptions {
  /** Of a new store: what is stored is readable for its group. */
  allowGroupAccess?: boolean | undefined;
}

/**
 * The directory of a store. It is proven before anything is called absent: where its disk is not
 * mounted there is an empty directory, or none.
 */
export class StoreRoot {
  readonly path: string;
  readonly fs: TreeFileSystem;
  /** What was proven to be an archive. */
  #proven: string | undefined;
  #naming: Promise<Naming> | undefined;
  #known: Naming | undefined;
  /**
   * Directories whose own names were made durable by this process. Others remove empty ones of which
   * they know that nobody needs them: see `makeDirectory`.
   */
  readonly #durable = new Set<string>();

  #groupReads: boolean | undefined;

  constructor(path: string, fs: TreeFileSystem, { allowGroupAccess }: StoreRootOptions = {}) {
    this.path = path;
    this.fs = fs;
    if (allowGroupAccess) this.#groupReads = true;
  }

  /** A path in the store's own room. */
  own(...parts: string[]): string {
    return join(this.path, RESERVED, ...parts);
  }

  /** @throws StoreAccessError unless the directory is there and an archive */
  async prove(): Promise<void> {
    // With the dot it is the directory that a link leads to.
    const id = async () => {
      const found = await this.fs.stat(`${this.path}/.`).catch(as('open directory', this.path));
      return found?.kind === 'directory' ? found.id : undefined;
    };
    const before = await id();
    if (before !== undefined && before === this.#proven) return;
    const why = before === undefined ? 'it is not there' : await this.#doubt();
    if (why !== undefined) {
      throw new StoreAccessError(`"${this.path}" cannot be used as a store: ${why}`, {
        path: this.path,
        hint: 'See that its disk is mounted. To begin a new archive there: walkeep store --init DIR.',
      });
    }
    this.#proven = before;
  }

  /** Makes a new store, or one of a directory that has files of an archive already. */
  async init(): Promise<void> {
    await this.#makeRoot(this.path);
    await this.#makeRoom();
  }

  /** Makes ready for storing; the directory must be an archive. */
  async naming(): Promise<Naming> {
    await this.prove();
    this.#naming ??= this.#makeRoom().catch((e) => {
      this.#naming = undefined;
      throw e;
    });
    return this.#naming;
  }

  /** How objects get their names, without making anything; undefined in a directory of others. */
  async knownNaming(): Promise<Naming | undefined> {
    this.#known ??= await this.#readMarker();
    return this.#known;
  }

  /** Makes a directory below the root, and all between, so that they are there after a crash. */
  async makeDirectory(path: string): Promise<void> {
    if (path === this.path || this.#durable.has(path)) return;
    for (let tries = 1; ; tries++) {
      await this.makeDirectory(dirname(path));
      try {
        // If it is new here, those around it may have been removed and made anew by others as well.
        if (await this.#mkdir(path)) await this.#syncNames(dirname(path));
        break;
      } catch (e) {
        const isGone = (e as NodeJS.ErrnoException).code === 'ENOENT';
        if (!isGone || tries === MOST_TRIES) throw fileError('create directory', path, e);
        this.forget(dirname(path));
      }
    }
    // Also one that was there: whoever made it may not have come to that.
    await fsyncDir(dirname(path), this.fs);
    this.#durable.add(path);
  }

  /** A directory that was removed, or may have been, with those around it. */
  forget(path: string): void {
    for (let at = path; at.length > this.path.length; at = dirname(at)) this.#durable.delete(at);
  }

  async #syncNames(path: string): Promise<void> {
    for (let at = path; at.length > this.path.length; at = dirname(at)) {
      await fsyncDir(dirname(at), this.fs);
    }
  }

  /** Writes a new file and syncs it; removed again if that fails. */
  async writeNew(path: string, pieces: AsyncIterable<Uint8Array> | Iterable<Uint8Array>) {
    const { fs } = this;
    const fd = await fs
      .open(path, CREATE_NEW, await this.#fileMode())
      .catch(as('create file', path));
    try {
      let at = 0;
      for await (const piece of pieces) {
        await writeFully(fs, fd, piece, at).catch(as('write file', path));
        at += piece.length;
      }
      await fs.fsync(fd).catch((e) => {
        throw fsyncError(path, e);
      });
      return await fs.fstat(fd).catch(as('look at', path));
    } catch (e) {
      await fs.unlink(path).catch(() => {});
      throw e;
    } finally {
      await fs.close(fd).catch(() => {});
    }
  }

  /** A small file of ours; undefined if there is none. */
  async readOwn(path: string): Promise<string | undefined> {
    const { fs } = this;
    let fd: number;
    try {
      fd = await fs.open(path, OPEN_OWN, 0);
    } catch (e) {
      if ((e as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw as('open file', path)(e);
    }
    try {
      const bytes = Buffer.alloc(await fs.size(fd).catch(as('look at', path)));
      const length = await readFully(fs, fd, bytes, 0).catch(as('read file', path));
      return bytes.toString('utf8', 0, length);
    } finally {
      await fs.close(fd).catch(() => {});
    }
  }

  /**
   * As readable for the group as what says so: the ledger of a receiver, which is as its WAL, or the
   * marker of a store.
   */
  async #fileMode(): Promise<number> {
    this.#groupReads ??= await this.#asksForGroup();
    return this.#groupReads ? 0o640 : 0o600;
  }

  async #asksForGroup(): Promise<boolean> {
    for (const path of [join(this.path, LEDGER), this.own(MARKER)]) {
      const found = await this.fs.stat(path).catch(as('look at', path));
      if (found?.kind === 'file' && found.groupReads) return true;
    }
    return false;
  }

  async #mkdir(path: string): Promise<boolean> {
    return this.fs.mkdir(path, (await this.#fileMode()) === 0o640 ? 0o750 : 0o700);
  }

  /** Why it may not be what was meant; undefined if something proves that it is. */
  async #doubt(): Promise<string | undefined> {
    for (const path of [this.own(MARKER), join(this.path, 'archive.json')]) {
      const found = await this.fs.stat(path).catch(as('look at', path));
      if (found?.kind === 'file') return undefined;
    }
    const entries = await this.fs.readdir(this.path).catch(as('open directory', this.path));
    if (entries.some(({ name }) => isOfArchive(name))) return undefined;
    return entries.length === 0 ? 'it is empty' : 'nothing in it is of an archive';
  }

  async #makeRoot(path: string): Promise<void> {
    const { fs } = this;
    const found = await fs.stat(`${path}/.`).catch(as('look at', path));
    if (found) return;
    await this.#makeRoot(dirname(path));
    await this.#mkdir(path).catch(as('create directory', path));
    await fsyncDir(dirname(path), fs);
  }

  async #makeRoom(): Promise<Naming> {
    const { fs } = this;
    for (const path of [this.own(), this.own('new'), this.own('meta')]) {
      // A link would have us write wherever it leads.
      await this.makeDirectory(path);
      const found = await fs.stat(path).catch(as('look at', path));
      if (found?.kind !== 'directory') {
        throw new StoreAccessError(`"${path}" is no directory`, { path, hint: 'Remove it.' });
      }
    }
    return (await this.#readMarker()) ?? this.#writeMarker();
  }

  async #readMarker(): Promise<Naming | undefined> {
    const path = this.own(MARKER);
    const text = await this.readOwn(path);
    if (text === undefined) return undefined;
    let marker: { format?: unknown; naming?: unknown } = {};
    try {
      marker = JSON.parse(text) as typeof marker;
    } catch {
      // Said below.
    }
    const { format, naming } = marker;
    if (format === 1 && (naming === 'link' || naming === 'lock')) return naming;
    throw new StoreUnsupportedError(`"${path}" is of a version that is not known`, { path });
  }

  async #writeMarker(): Promise<Naming> {
    const { fs } = this;
    const path = this.own(MARKER);
    const temporary = this.own('new', `${MARKER}.${randomUUID()}`);
    const second = `${temporary}.link`;
    const write = async (naming: Naming) => {
      await fs.unlink(temporary).catch(() => {});
      await this.writeNew(temporary, [Buffer.from(`${JSON.stringify({ format: 1, naming })}\n`)]);
    };
    await write('link');
    try {
      const linked = await fs.link(temporary, second).catch(as('link file', temporary));
      if (linked === 'no links') await write('lock');
      // Where there are no links, all that write it write the same.
      if (linked === 'no links') await fs.rename(temporary, path).catch(as('rename file', path));
      else await fs.link(temporary, path).catch(as('link file', path));
      await fsyncDir(this.own(), fs);
    } finally {
      await fs.unlink(second).catch(() => {});
      await fs.unlink(temporary).catch(() => {});
    }
    return (await this.#readMarker()) as Naming;
  }
}

/** What only an archive has at its top: its own files, or those of a receiver. */
export function isOfArchive(name: string): boolean {
  return (
    name.startsWith('.walkeep') ||
    parseStoredName(name) !== undefined ||
    parseHistoryFileName(name) !== undefined
  );
}
