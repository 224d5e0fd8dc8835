import { dirname, join } from 'node:path';
import {
  type FileStat,
  nodeTreeFileSystem,
  type TreeFileSystem,
} from '../../files/tree-file-system.js';
import { Closing } from '../closing.js';
import { provenBody, rangeOf, requireContent, requireMetadata, requireRange } from '../content.js';
import { requireKey, requirePrefix } from '../key.js';
import { probeStore } from '../probe.js';
import type {
  CallOptions,
  Capabilities,
  Content,
  Created,
  CreateOptions,
  Entry,
  GetOptions,
  Got,
  Head,
  ListOptions,
  ObjectStore,
  Removed,
  RemoveOptions,
} from '../store.js';
import { as, fileError } from './errors.js';
import { irregular, isObject, modifiedOf, ObjectFiles } from './object-files.js';
import { ObjectWriter } from './object-writer.js';
import { StoreRoot } from './root.js';
import { sidecarPath } from './sidecar.js';
import { Staging } from './staging.js';
import { walk } from './walk.js';

export interface FileStoreOptions {
  /** Makes the directory if there is none, and a store of it whatever it holds. */
  init?: boolean;
  /** With `init`: what is stored is readable for its group, from now on. */
  allowGroupAccess?: boolean;
  fs?: TreeFileSystem;
  /** Whether who writes a file under way is no more. */
  isDead?: (name: string) => Promise<boolean>;
}

/**
 * Opens a directory as a store. A key is the path of its file below it; what is kept of it beside
 * its bytes lies in `.walkeep-store`, as do objects under way. Directories of others are read as
 * they are, such as one that a receiver writes to.
 * @throws StoreAccessError unless it is there, and an archive
 */
export async function openFileStore(
  path: string,
  { init = false, fs = nodeTreeFileSystem, isDead, ...wishes }: FileStoreOptions = {},
): Promise<ObjectStore> {
  const root = new StoreRoot(path, fs, wishes);
  if (init) await root.init();
  else await root.prove();
  return new FileStore(root, new Staging(root, isDead));
}

class FileStore implements ObjectStore {
  readonly place: string;
  readonly #root: StoreRoot;
  readonly #fs: TreeFileSystem;
  readonly #closing: Closing;
  readonly #files: ObjectFiles;
  readonly #writer: ObjectWriter;

  constructor(root: StoreRoot, staging: Staging) {
    this.place = root.path;
    this.#root = root;
    this.#fs = root.fs;
    this.#files = new ObjectFiles(root, staging);
    this.#writer = new ObjectWriter(root, staging, this.#files);
    this.#closing = new Closing(root.path);
  }

  async create(key: string, content: Content, options: CreateOptions = {}): Promise<Created> {
    requireKey(key);
    requireContent(content);
    requireMetadata(options.meta);
    const signal = this.#closing.signal(options);
    signal.throwIfAborted();
    return this.#writer.create(key, content, options, signal);
  }

  async get(key: string, options: GetOptions = {}): Promise<Got | undefined> {
    requireKey(key);
    requireRange(options.range);
    const signal = this.#closing.signal(options);
    signal.throwIfAborted();
    const path = await this.#files.locate(key);
    const fd = path === undefined ? undefined : await this.#files.open(path, key);
    if (path === undefined || fd === undefined) return this.#absent();
    let stat: FileStat;
    try {
      stat = await this.#fs.fstat(fd).catch(as('look at', path, key));
    } finally {
      await this.#fs.close(fd).catch(() => {});
    }
    if (!isObject(stat, path, key)) return this.#absent();
    const head = await this.#files.headOf(key, stat);
    signal.throwIfAborted();
    const { start, end } = rangeOf(options, stat.size);
    const isWhole = end - start === stat.size;
    const expected = { key, length: end - start, sha256: isWhole ? head.sha256 : undefined };
    return {
      ...head,
      body: provenBody(this.#files.read(key, path, stat.id, start, end), expected, signal),
    };
  }

  async head(key: string, options: CallOptions = {}): Promise<Head | undefined> {
    requireKey(key);
    const signal = this.#closing.signal(options);
    signal.throwIfAborted();
    const found = await this.#files.stat(key);
    if (!found) return this.#absent();
    const head = await this.#files.headOf(key, found);
    signal.throwIfAborted();
    return head;
  }

  async *list(prefix: string, options: ListOptions = {}): AsyncGenerator<Entry, void, void> {
    requirePrefix(prefix);
    const signal = this.#closing.signal(options);
    signal.throwIfAborted();
    await this.#root.prove();
    const directory = prefix.slice(0, prefix.lastIndexOf('/') + 1);
    const { after } = options;
    // Not through a link, nor in another case.
    if (directory === '' || (await this.#files.locate(`${directory}x`, false)) !== undefined) {
      for await (const { key, stat } of walk(this.#root, directory, { prefix, after }, signal)) {
        await this.#files.confirm(key, stat);
        yield { key, size: stat.size, modified: modifiedOf(stat) };
        signal.throwIfAborted();
      }
    }
    // What was not seen was absent only if the disk was there all the time.
    await this.#root.prove();
  }

  async remove(keys: readonly string[], options: RemoveOptions = {}): Promise<Removed> {
    for (const key of keys) requireKey(key);
    const pruned = options.prune?.replace(/\/$/, '');
    if (pruned !== undefined) requireKey(pruned);
    const signal = this.#closing.signal(options);
    signal.throwIfAborted();
    await this.#root.prove();
    const result: Removed = { removed: [], retained: [] };
    for (const key of keys) {
      signal.throwIfAborted();
      result[await this.#removeOne(key)].push(key);
    }
    await this.#root.prove();
    if (pruned !== undefined) await this.#prune(pruned);
    return result;
  }

  async probe(options: CallOptions = {}): Promise<Capabilities> {
    const signal = this.#closing.signal(options);
    return { ...(await probeStore(this, signal)), versioning: false, lock: false };
  }

  async close(): Promise<void> {
    this.#closing.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Only after the directory was proven once more "not there" is an answer. */
  async #absent(): Promise<undefined> {
    await this.#root.prove();
    return undefined;
  }

  /** What cannot be removed is empty, or becomes so later: it harms nobody. */
  async #prune(directory: string): Promise<void> {
    try {
      // Not through a link.
      const way = await this.#files.locate(`${directory}/x`, false);
      if (way !== undefined) await this.#removeEmpty(dirname(way));
    } catch {
      // As said above.
    }
  }

  async #removeEmpty(path: string): Promise<void> {
    for (const { name, kind } of await this.#fs.readdir(path)) {
      if (kind === 'directory') await this.#removeEmpty(join(path, name)).catch(() => {});
    }
    this.#root.forget(path);
    await this.#fs.rmdir(path);
  }

  async #removeOne(key: string): Promise<keyof Removed> {
    const path = await this.#files.locate(key);
    if (path === undefined) return 'removed';
    const found = await this.#fs.stat(path).catch(as('look at', path, key));
    if (!found || found.kind === 'directory') return 'removed';
    if (found.kind !== 'file') throw irregular(path, key);
    try {
      await this.#fs.unlink(path);
    } catch (e) {
      const { code } = e as NodeJS.ErrnoException;
      // chattr +i, or a directory where everybody removes only what is his own.
      if (code === 'EPERM') return 'retained';
      if (code !== 'ENOENT') throw fileError('remove file', path, e, key);
    }
    // Should it stay, nothing takes it for a later object's.
    await this.#fs.unlink(sidecarPath(this.#root, key)).catch(() => {});
    return 'removed';
  }
}
