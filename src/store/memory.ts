import { randomUUID } from 'node:crypto';
import { StoreUncertainError, UsageError } from '../errors.js';
import { Closing } from './closing.js';
import {
  provenBody,
  provenContent,
  rangeOf,
  requireContent,
  requireMetadata,
  requireRange,
} from './content.js';
import { compareKeys, requireKey, requirePrefix } from './key.js';
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
  Metadata,
  ObjectStore,
  Removed,
  RemoveOptions,
} from './store.js';

/** One call on a store, as it is told to whoever decides its fate. */
export interface MemoryCall {
  op: 'create' | 'get' | 'head' | 'list' | 'remove';
  /** What is listed: its prefix. Of several that are removed, the first. */
  key: string;
}

/**
 * What happens to one call.
 * - `refused`: nothing is done, and the answer is lost
 * - `lost`: it is done, and the answer is lost
 * - `late`: the answer is lost, and it is done at the next `MemoryObjects.settle`
 * - `stall`: nothing is done, and no answer comes until the call is aborted; `done`: it is done before
 * - `short`: the body ends after so many bytes
 * - `corrupt`: a bit of the body is another one
 * - `stale`: `list` answers as it would have before the last so many changes
 * - `error`: nothing is done, and this is thrown
 */
export type MemoryFault =
  | { kind: 'refused' | 'lost' | 'late' }
  | { kind: 'stall'; done?: boolean }
  | { kind: 'short'; bytes: number }
  | { kind: 'corrupt' }
  | { kind: 'stale'; changes: number }
  | { kind: 'error'; error: Error };

interface Stored {
  bytes: Uint8Array;
  sha256: string;
  meta: Metadata;
  token: string;
  modified: Date;
}

/** What a store in memory holds: outlives those who use it, as a service does. */
export class MemoryObjects {
  readonly #now: () => number;
  readonly #objects = new Map<string, Stored>();
  /** Every change, to be able to answer as of before it. */
  readonly #changes: { key: string; before: Stored | undefined }[] = [];
  readonly #late: (() => void)[] = [];

  /** @param now the clock of the store */
  constructor(now: () => number = Date.now) {
    this.#now = now;
  }

  get now(): number {
    return this.#now();
  }

  get(key: string): Stored | undefined {
    return this.#objects.get(key);
  }

  /** False: there is one already. */
  create(key: string, object: Omit<Stored, 'modified'>): boolean {
    if (this.#objects.has(key)) return false;
    this.#changes.push({ key, before: undefined });
    this.#objects.set(key, { ...object, modified: new Date(this.#now()) });
    return true;
  }

  remove(key: string): void {
    const before = this.#objects.get(key);
    if (!before) return;
    this.#changes.push({ key, before });
    this.#objects.delete(key);
  }

  /** Sorted; as it was before the last so many changes. */
  entries(before = 0): [string, Stored][] {
    const seen = new Map(this.#objects);
    for (const change of this.#changes
      .slice(Math.max(0, this.#changes.length - before))
      .reverse()) {
      if (change.before) seen.set(change.key, change.before);
      else seen.delete(change.key);
    }
    return [...seen].sort(([a], [b]) => compareKeys(a, b));
  }

  /** Changes a stored byte, as a bad disk of the service would. */
  damage(key: string, at: number): void {
    const object = this.#objects.get(key);
    if (!object || at >= object.bytes.length) throw new UsageError(`no byte ${at} in "${key}"`);
    const bytes = Uint8Array.from(object.bytes);
    bytes[at] = (bytes[at] as number) ^ 1;
    this.#objects.set(key, { ...object, bytes });
  }

  /** To be done at the next `settle`. */
  later(act: () => void): void {
    this.#late.push(act);
  }

  /** What was on its way when its caller gave up arrives now. Returns how much that was. */
  settle(): number {
    const late = this.#late.splice(0);
    for (const act of late) act();
    return late.length;
  }
}

export interface MemoryStoreOptions {
  /** What others use, too. */
  objects?: MemoryObjects;
  /** Asked before each call; undefined lets it pass. */
  faults?: (call: MemoryCall) => MemoryFault | undefined;
  place?: string;
}

const PIECE = 64 * 1024;

/** A store in the memory of this process, for simulation: with every fault that a real one has. */
export class MemoryStore implements ObjectStore {
  readonly place: string;
  readonly objects: MemoryObjects;
  readonly #faults: (call: MemoryCall) => MemoryFault | undefined;
  readonly #closing: Closing;
  #crashed = false;
  /** Calls that reached the store. */
  readonly calls: MemoryCall[] = [];

  constructor(options: MemoryStoreOptions = {}) {
    this.objects = options.objects ?? new MemoryObjects();
    this.#faults = options.faults ?? (() => undefined);
    this.place = options.place ?? 'memory:';
    this.#closing = new Closing(this.place);
  }

  async create(key: string, content: Content, options: CreateOptions = {}): Promise<Created> {
    requireKey(key);
    requireContent(content);
    requireMetadata(options.meta);
    const token = options.token ?? randomUUID();
    return this.#call({ op: 'create', key }, options, async (signal) => {
      const bytes = Buffer.alloc(content.size);
      let at = 0;
      for await (const piece of provenContent(key, content, signal)) {
        bytes.set(piece, at);
        at += piece.length;
      }
      // In one step from here on: whoever is first has created it.
      return () => {
        const meta = { ...options.meta };
        if (this.objects.create(key, { bytes, sha256: content.sha256, meta, token })) {
          return { created: true };
        }
        const there = this.objects.get(key);
        const earlier = there?.token === token && there.sha256 === content.sha256;
        if (earlier) return { created: true };
        return { created: false, found: this.#head(key) as Head };
      };
    });
  }

  async get(key: string, options: GetOptions = {}): Promise<Got | undefined> {
    requireKey(key);
    requireRange(options.range);
    return this.#call({ op: 'get', key }, options, async (_, fault) => () => {
      const head = this.#head(key);
      const object = this.objects.get(key);
      if (!head || !object) return undefined;
      const { start, end } = rangeOf(options, object.bytes.length);
      const length = end - start;
      const whole = length === object.bytes.length;
      const expected = { key, length, sha256: whole ? object.sha256 : undefined };
      const source = pieces(spoiled(object.bytes.subarray(start, end), fault));
      return { ...head, body: provenBody(source, expected, this.#closing.signal(options)) };
    });
  }

  async head(key: string, options: CallOptions = {}): Promise<Head | undefined> {
    requireKey(key);
    return this.#call({ op: 'head', key }, options, async () => () => this.#head(key));
  }

  async *list(prefix: string, options: ListOptions = {}): AsyncGenerator<Entry, void, void> {
    requirePrefix(prefix);
    const entries = await this.#call(
      { op: 'list', key: prefix },
      options,
      async (_, fault) => () => this.objects.entries(fault?.kind === 'stale' ? fault.changes : 0),
    );
    const { after } = options;
    for (const [key, { bytes, modified }] of entries) {
      this.#closing.signal(options).throwIfAborted();
      if (!key.startsWith(prefix)) continue;
      if (after !== undefined && compareKeys(key, after) <= 0) continue;
      yield { key, size: bytes.length, modified };
    }
  }

  async remove(keys: readonly string[], options: RemoveOptions = {}): Promise<Removed> {
    for (const key of keys) requireKey(key);
    if (keys.length === 0) return { removed: [], retained: [] };
    return this.#call({ op: 'remove', key: keys[0] as string }, options, async () => () => {
      for (const key of keys) this.objects.remove(key);
      return { removed: [...keys], retained: [] };
    });
  }

  async probe(options: CallOptions = {}): Promise<Capabilities> {
    this.#closing.signal(options).throwIfAborted();
    return {
      conditionalCreate: true,
      versioning: false,
      lock: false,
      clockOffset: this.objects.now - Date.now(),
    };
  }

  async close(): Promise<void> {
    this.#closing.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /**
   * The process that uses it dies: no call of it, under way or new, ever comes back. What it had
   * asked for and was not done yet is not done any more. What is stored stays, for the next one.
   */
  crash(): void {
    this.#crashed = true;
  }

  #head(key: string): Head | undefined {
    const object = this.objects.get(key);
    if (!object) return undefined;
    const { bytes, sha256, meta, modified } = object;
    return { key, size: bytes.length, modified, sha256, meta };
  }

  /** @param prepare all that may take time; what it gives does the rest in one step */
  async #call<T>(
    call: MemoryCall,
    options: CallOptions,
    prepare: (signal: AbortSignal, fault: MemoryFault | undefined) => Promise<() => T>,
  ): Promise<T> {
    const signal = this.#closing.signal(options);
    await this.#alive(Promise.resolve());
    signal.throwIfAborted();
    this.calls.push(call);
    const fault = this.#faults(call);
    if (fault?.kind === 'error') throw fault.error;
    if (fault?.kind === 'refused') throw noAnswer(call);
    if (fault?.kind === 'stall' && !fault.done) return this.#alive(untilAbort(signal));
    const act = await this.#alive(prepare(signal, fault));
    signal.throwIfAborted();
    if (fault?.kind === 'late') {
      this.objects.later(act);
      throw noAnswer(call);
    }
    const result = act();
    if (fault?.kind === 'lost') throw noAnswer(call);
    return this.#alive(fault?.kind === 'stall' ? untilAbort(signal) : Promise.resolve(result));
  }

  /** The same, but for a process that has died meanwhile. */
  async #alive<T>(promise: Promise<T>): Promise<T> {
    try {
      return await promise;
    } finally {
      if (this.#crashed) await new Promise(() => {});
    }
  }
}

function noAnswer({ op, key }: MemoryCall): StoreUncertainError {
  return new StoreUncertainError(`no answer to ${op} "${key}"`, { key });
}

function untilAbort(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
}

/** What arrives of bytes that were sent. */
function spoiled(bytes: Uint8Array, fault: MemoryFault | undefined): Uint8Array {
  if (fault?.kind === 'short') return bytes.subarray(0, Math.min(fault.bytes, bytes.length - 1));
  if (fault?.kind !== 'corrupt' || bytes.length === 0) return bytes;
  const other = Uint8Array.from(bytes);
  const middle = bytes.length >> 1;
  other[middle] = (other[middle] as number) ^ 1;
  return other;
}

async function* pieces(bytes: Uint8Array): AsyncGenerator<Uint8Array, void, void> {
  // Copies: nobody can change what is stored.
  for (let at = 0; at < bytes.length; at += PIECE)
    yield Uint8Array.from(bytes.subarray(at, at + PIECE));
}
