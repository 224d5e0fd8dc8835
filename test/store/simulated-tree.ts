import { constants } from 'node:fs';
import type { DirectoryEntry } from '../../src/files/file-system.js';
import type { FileStat } from '../../src/files/tree-file-system.js';
import type { RestoreFileSystem } from '../../src/restore/file-system.js';
import type { Random } from '../simulation/random.js';

/** A file, with what of it is on the disk, a directory, or a link, which no call follows. */
type Node = FileNode | DirectoryNode | LinkNode;

interface LinkNode {
  kind: 'link';
  id: number;
  to: string;
}

interface FileNode {
  kind: 'file';
  id: number;
  bytes: Buffer;
  mtimeNs: bigint;
  durable: Buffer | undefined;
}

interface DirectoryNode {
  kind: 'directory';
  id: number;
  entries: Map<string, Node>;
  durable: Map<string, Node>;
}

/** Names that change in one step. */
type Change = readonly { directory: DirectoryNode; name: string; node: Node | undefined }[];

/**
 * A disk with directories. Names and contents change in memory and are durable after an fsync, of
 * the directory and of the file; of the rest a power cut leaves what it likes.
 */
export class SimulatedTree {
  readonly #root: DirectoryNode = directory(1);
  #pending: Change[] = [];
  #ids = 1;
  #clock = 1_700_000_000_123_456_789n;

  /** The calls of a process. @param at which call it dies at; before it is done, or after */
  process(random: Random, at = Number.POSITIVE_INFINITY, when: 'before' | 'after' = 'before') {
    return new SimulatedProcess(this, random, at, when);
  }

  cutPower(random: Random): void {
    const journal = random.chance(0.5);
    const kept = random.below(this.#pending.length + 1);
    this.#pending.forEach((change, i) => {
      if (journal ? i < kept : random.chance(0.5)) store(change);
    });
    this.#pending = [];
    this.#lose(this.#root, random, new Set());
  }

  find(path: string): Node | undefined {
    let node: Node | undefined = this.#root;
    for (const name of path.split('/').filter((part) => part && part !== '.')) {
      node = node?.kind === 'directory' ? node.entries.get(name) : undefined;
    }
    return node;
  }

  parent(path: string): { directory: DirectoryNode; name: string } {
    const at = path.lastIndexOf('/');
    const found = this.find(path.slice(0, at));
    if (!found) throw errno('ENOENT');
    if (found.kind !== 'directory') throw errno('ENOTDIR');
    return { directory: found, name: path.slice(at + 1) };
  }

  file(): FileNode {
    return {
      kind: 'file',
      id: this.#id(),
      bytes: Buffer.alloc(0),
      mtimeNs: this.tick(),
      durable: undefined,
    };
  }

  directory(): DirectoryNode {
    return directory(this.#id());
  }

  link(to: string): LinkNode {
    return { kind: 'link', id: this.#id(), to };
  }

  change(change: Change): void {
    for (const { directory, name, node } of change) {
      if (node) directory.entries.set(name, node);
      else directory.entries.delete(name);
    }
    this.#pending.push(change);
  }

  sync(node: Node): void {
    if (node.kind === 'file') {
      node.durable = Buffer.from(node.bytes);
      return;
    }
    if (node.kind === 'link') return;
    this.#pending = this.#pending.filter((change) => {
      if (!change.some(({ directory }) => directory === node)) return true;
      store(change);
      return false;
    });
  }

  tick(): bigint {
    this.#clock += 1001n;
    return this.#clock;
  }

  links(node: Node, from: DirectoryNode = this.#root): number {
    let count = 0;
    for (const other of from.entries.values()) {
      if (other === node) count += 1;
      if (other.kind === 'directory') count += this.links(node, other);
    }
    return count;
  }

  #id(): number {
    this.#ids += 1;
    return this.#ids;
  }

  #lose(at: DirectoryNode, random: Random, seen: Set<Node>): void {
    at.entries = new Map(at.durable);
    for (const node of at.entries.values()) {
      if (seen.has(node)) continue;
      seen.add(node);
      if (node.kind === 'directory') this.#lose(node, random, seen);
      else if (node.kind === 'file' && !node.durable?.equals(node.bytes)) tear(node, random);
    }
  }
}

function directory(id: number): DirectoryNode {
  return { kind: 'directory', id, entries: new Map(), durable: new Map() };
}

function store(change: Change): void {
  for (const { directory, name, node } of change) {
    if (node) directory.durable.set(name, node);
    else directory.durable.delete(name);
  }
}

/** The size travels without the bytes, and the bytes in any part. */
function tear(file: FileNode, random: Random): void {
  const size = random.pick([0, file.bytes.length, random.below(file.bytes.length + 1)]);
  const bytes = Buffer.alloc(size);
  if (random.chance(0.5)) file.bytes.copy(bytes, 0, 0, random.below(size + 1));
  file.bytes = bytes;
  file.durable = bytes;
}

/** The calls that a store makes; in any order with those of other processes. */
class SimulatedProcess {
  /** Calls so far. */
  calls = 0;
  dead = false;
  readonly #tree: SimulatedTree;
  readonly #random: Random;
  readonly #at: number;
  readonly #when: 'before' | 'after';
  readonly #open = new Map<number, Node>();
  /** Resolves when it has died. */
  readonly death: Promise<'died'>;
  #die!: (value: 'died') => void;

  constructor(tree: SimulatedTree, random: Random, at: number, when: 'before' | 'after') {
    this.#tree = tree;
    this.#random = random;
    this.#at = at;
    this.#when = when;
    this.death = new Promise((resolve) => {
      this.#die = resolve;
    });
  }

  get fs(): RestoreFileSystem {
    const call =
      <A extends unknown[], T>(act: (...args: A) => T) =>
      (...args: A) =>
        this.#call(() => act(...args));
    const calls: Partial<RestoreFileSystem> = {
      open: call((path: string, flags: number) => this.#doOpen(path, flags)),
      close: call((fd: number) => void this.#open.delete(fd)),
      size: call((fd: number) => this.#file(fd).bytes.length),
      read: call((fd: number, buffer: Uint8Array, length: number, position: number) => {
        const piece = this.#file(fd).bytes.subarray(position, position + length);
        buffer.set(piece);
        return piece.length;
      }),
      writev: call((fd: number, buffers: readonly Uint8Array[], position: number) => {
        const file = this.#file(fd);
        const bytes = Buffer.concat(buffers);
        const whole = Buffer.alloc(Math.max(file.bytes.length, position + bytes.length));
        file.bytes.copy(whole);
        bytes.copy(whole, position);
        file.bytes = whole;
        file.mtimeNs = this.#tree.tick();
        return bytes.length;
      }),
      ftruncate: call((fd: number, size: number) => {
        const file = this.#file(fd);
        const whole = Buffer.alloc(size);
        file.bytes.copy(whole);
        file.bytes = whole;
        file.mtimeNs = this.#tree.tick();
      }),
      fsync: call((fd: number) => this.#tree.sync(this.#node(fd))),
      rename: call((from: string, to: string) => {
        const [a, b] = [this.#tree.parent(from), this.#tree.parent(to)];
        const node = a.directory.entries.get(a.name);
        if (!node) throw errno('ENOENT');
        this.#tree.change([
          { ...a, node: undefined },
          { ...b, node },
        ]);
      }),
      unlink: call((path: string) => {
        const at = this.#tree.parent(path);
        if (!at.directory.entries.has(at.name)) throw errno('ENOENT');
        this.#tree.change([{ ...at, node: undefined }]);
      }),
      readdir: call((path: string): DirectoryEntry[] => {
        const found = this.#tree.find(path);
        if (!found) throw errno('ENOENT');
        if (found.kind !== 'directory') throw errno('ENOTDIR');
        return [...found.entries].map(([name, { kind }]) => ({ name, kind }));
      }),
      stat: call((path: string) => this.#seen(this.#tree.find(path))),
      fstat: call((fd: number) => this.#seen(this.#node(fd)) as FileStat),
      mkdir: call((path: string) => {
        const at = this.#tree.parent(path);
        if (at.directory.entries.has(at.name)) return false;
        this.#tree.change([{ ...at, node: this.#tree.directory() }]);
        return true;
      }),
      rmdir: call((path: string) => {
        const at = this.#tree.parent(path);
        const node = at.directory.entries.get(at.name);
        if (node?.kind !== 'directory') throw errno(node ? 'ENOTDIR' : 'ENOENT');
        if (node.entries.size > 0) throw errno('ENOTEMPTY');
        this.#tree.change([{ ...at, node: undefined }]);
      }),
      symlink: call((to: string, path: string) => {
        const at = this.#tree.parent(path);
        if (at.directory.entries.has(at.name)) throw errno('EEXIST');
        this.#tree.change([{ ...at, node: this.#tree.link(to) }]);
      }),
      readlink: call((path: string) => {
        const found = this.#tree.find(path);
        if (found?.kind !== 'link') throw errno(found ? 'EINVAL' : 'ENOENT');
        return found.to;
      }),
      chmod: call(() => undefined),
      readFile: call((path: string) => {
        const found = this.#tree.find(path);
        if (found?.kind !== 'file') throw errno(found ? 'EISDIR' : 'ENOENT');
        return Buffer.from(found.bytes);
      }),
      kind: call((path: string) => {
        const found = this.#tree.find(path);
        return found && (found.kind === 'directory' ? 'other' : found.kind);
      }),
      link: call((from: string, to: string): 'done' | 'taken' => {
        const node = this.#tree.find(from);
        const at = this.#tree.parent(to);
        if (!node) throw errno('ENOENT');
        if (at.directory.entries.has(at.name)) return 'taken';
        this.#tree.change([{ ...at, node }]);
        return 'done';
      }),
    };
    return calls as RestoreFileSystem;
  }

  async #call<T>(act: () => T): Promise<T> {
    const turns = this.#random.below(4);
    for (let i = 0; i < turns; i++) await Promise.resolve();
    this.calls += 1;
    const dies = this.calls === this.#at;
    if (this.dead || (dies && this.#when === 'before')) return this.#end();
    const result = act();
    return dies ? this.#end() : result;
  }

  /** Nothing of it is done any more. */
  kill(): void {
    this.dead = true;
    this.#die('died');
  }

  #end(): Promise<never> {
    this.kill();
    return new Promise(() => {});
  }

  #doOpen(path: string, flags: number): number {
    let node = this.#tree.find(path);
    if (flags & constants.O_CREAT) {
      const at = this.#tree.parent(path);
      if (node) throw errno('EEXIST');
      node = this.#tree.file();
      this.#tree.change([{ ...at, node }]);
    }
    if (!node) throw errno('ENOENT');
    let fd = 3;
    while (this.#open.has(fd)) fd += 1;
    this.#open.set(fd, node);
    return fd;
  }

  #seen(node: Node | undefined): FileStat | undefined {
    if (!node) return undefined;
    return {
      kind: node.kind,
      size: node.kind === 'file' ? node.bytes.length : 0,
      mtimeNs: node.kind === 'file' ? node.mtimeNs : 0n,
      links: this.#tree.links(node),
      id: `${node.id}`,
    };
  }

  #node(fd: number): Node {
    const found = this.#open.get(fd);
    if (!found) throw errno('EBADF');
    return found;
  }

  #file(fd: number): FileNode {
    const found = this.#node(fd);
    if (found.kind !== 'file') throw errno('EISDIR');
    return found;
  }
}

function errno(code: string): Error {
  return Object.assign(new Error(`simulated ${code}`), { code });
}
