import { randomUUID } from 'node:crypto';
import { ownIdentity, type ProcessIdentity } from '../../files/process-identity.js';
import { isOrphaned, stagedName } from '../../files/staged-name.js';
import { as } from './errors.js';
import type { StoreRoot } from './root.js';
import { decodeSidecar, type Sidecar } from './sidecar.js';

/** Behind the name of an object under way: its sidecar, before it has its place. */
const META = '.meta';
const NOTE = 'naming';
/** Milliseconds after which what a process of another machine has under way was left by a crash. */
const LEFTOVER_AGE = 24 * 3600 * 1000;

/**
 * Where objects are written before they get their names. An object that has its name keeps the one
 * here until all about it is durable: two names say that it may not be yet, and what is left to do
 * can be done by anybody who finds it.
 */
export class Staging {
  readonly #root: StoreRoot;
  readonly #isDead: (name: string, self: ProcessIdentity) => Promise<boolean>;
  #self: Promise<ProcessIdentity> | undefined;

  constructor(root: StoreRoot, isDead = isOrphaned) {
    this.#root = root;
    this.#isDead = isDead;
  }

  /** A new name that says who writes it. */
  async name(): Promise<string> {
    const self = { ...(await this.#identity()), token: randomUUID() };
    return this.#root.own('new', stagedName(self));
  }

  /** What is known of an object that has a name here still. @param id the file */
  async sidecarOf(id: string): Promise<Sidecar | undefined> {
    const path = await this.#find(id);
    return path === undefined ? undefined : decodeSidecar(await this.#root.readOwn(metaOf(path)));
  }

  /** Whether a file has a name here: not all about it is durable then. */
  async has(id: string): Promise<boolean> {
    return (await this.#find(id)) !== undefined;
  }

  /** The key of the object that is being renamed to its place, where there are no links. */
  noted(): Promise<string | undefined> {
    return this.#root.readOwn(this.#root.own(NOTE));
  }

  /** Says which one that is; nobody else does at the same time. */
  async note(key: string): Promise<void> {
    await this.#root.writeNew(this.#root.own(NOTE), [Buffer.from(key)]);
  }

  async removeNote(): Promise<void> {
    const path = this.#root.own(NOTE);
    await this.#root.fs.unlink(path).catch(as('remove file', path));
  }

  /**
   * Ends what killed writers began: an object that got its name gets the rest, all else goes.
   * @param finish does what is left to do, if the object has its name
   */
  async clean(finish: (staged: string, sidecar: Sidecar) => Promise<void>): Promise<void> {
    const { fs } = this.#root;
    const self = await this.#identity();
    const names = await this.#names();
    for (const name of new Set(names.map((n) => n.replace(META_END, '')))) {
      const path = this.#root.own('new', name);
      const found =
        (await fs.stat(path).catch(as('look at', path))) ??
        (await fs.stat(metaOf(path)).catch(as('look at', path)));
      if (!found) continue;
      const age = Date.now() - Number(found.mtimeNs / 1_000_000n);
      if (age < LEFTOVER_AGE && !(await this.#isDead(name, self))) continue;
      const sidecar = decodeSidecar(await this.#root.readOwn(metaOf(path)));
      if (sidecar) await finish(path, sidecar);
      await this.discard(path);
    }
  }

  /** Removes an object under way, or the name here of one that is finished. */
  async discard(staged: string): Promise<void> {
    const { fs } = this.#root;
    // The object's first: its sidecar may be what somebody looks for who sees both names.
    for (const path of [staged, metaOf(staged)]) {
      await fs.unlink(path).catch((e: NodeJS.ErrnoException) => {
        if (e.code !== 'ENOENT') throw as('remove file', path)(e);
      });
    }
  }

  async #find(id: string): Promise<string | undefined> {
    for (const name of await this.#names()) {
      const path = this.#root.own('new', name);
      const found = await this.#root.fs.stat(path).catch(as('look at', path));
      if (found?.id === id) return path;
    }
    return undefined;
  }

  async #names(): Promise<string[]> {
    const path = this.#root.own('new');
    const entries = await this.#root.fs.readdir(path).catch((e: NodeJS.ErrnoException) => {
      if (e.code === 'ENOENT') return [];
      throw as('open directory', path)(e);
    });
    return entries.filter(({ kind }) => kind === 'file').map(({ name }) => name);
  }

  #identity(): Promise<ProcessIdentity> {
    this.#self ??= ownIdentity();
    return this.#self;
  }
}

const META_END = /\.meta$/;

export function metaOf(staged: string): string {
  return `${staged}${META}`;
}
