import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { StoreUncertainError } from '../../errors.js';
import { unlessAborted } from '../aborted.js';
import { Closing } from '../closing.js';
import { provenBody, rangeOf, requireContent, requireMetadata, requireRange } from '../content.js';
import { ListingOrder, requireKey, requirePrefix } from '../key.js';
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
import { violation } from './frame.js';
import { type Call, SourceError, type StdioSession } from './session.js';
import { decodeEntries, decodeHead } from './values.js';

export interface StdioStoreOptions {
  place: string;
  /** Opens a connection; it is greeted by the store. */
  connect: () => Promise<StdioSession>;
  /** Tries of a call, each over a new connection where the last one broke. Default 4. */
  attempts?: number | undefined;
  /** Milliseconds for a call with all its tries, until its answer begins. Default 5 minutes. */
  timeout?: number | undefined;
  /** Milliseconds before the second try, more before later ones. Default 500. */
  backOff?: number | undefined;
}

/** Bytes of the keys of one request to remove. */
const REMOVE_BATCH = 256 * 1024;
const MOST_BACK_OFF = 10_000;

/** A store that is served at the other end of a pipe, see serveStore. */
export class StdioStore implements ObjectStore {
  readonly place: string;
  readonly #options: StdioStoreOptions;
  readonly #closing: Closing;
  #session: Promise<StdioSession> | undefined;

  constructor(options: StdioStoreOptions) {
    this.place = options.place;
    this.#options = options;
    this.#closing = new Closing(options.place);
  }

  async create(key: string, content: Content, options: CreateOptions = {}): Promise<Created> {
    requireKey(key);
    requireContent(content);
    requireMetadata(options.meta);
    const { meta = {}, token = randomUUID() } = options;
    const { size, sha256 } = content;
    const fields = { op: 'create', key, size, sha256, meta, token };
    const result = await this.#try(options, (session, signal) =>
      session.request(fields, { signal, content }),
    );
    if (result.created === true) return { created: true };
    if (result.created !== false) throw violation('no answer to create');
    return { created: false, found: decodeHead(result.found) };
  }

  async get(key: string, options: GetOptions = {}): Promise<Got | undefined> {
    requireKey(key);
    requireRange(options.range);
    const fields = { op: 'get', key, range: options.range };
    // The deadline is for the head; the body takes as long as its reader does.
    const signal = this.#closing.signal(options);
    return this.#try(options, async (session, attempt) => {
      const call = await session.call(fields, signal);
      const head = await unlessAborted(call.head, attempt).catch((error) => {
        call.done();
        throw error;
      });
      if (head) return this.#got(decodeHead(head), call, options, signal);
      const result = await call.result.finally(() => call.done());
      if (result.absent !== true) throw violation('no answer to get');
      return undefined;
    });
  }

  async head(key: string, options: CallOptions = {}): Promise<Head | undefined> {
    requireKey(key);
    const { absent, head } = await this.#try(options, (session, signal) =>
      session.request({ op: 'head', key }, { signal }),
    );
    if (absent === true) return undefined;
    return decodeHead(head);
  }

  async *list(prefix: string, options: ListOptions = {}): AsyncGenerator<Entry, void, void> {
    requirePrefix(prefix);
    let { after } = options;
    for (let failures = 0; ; failures++) {
      try {
        for await (const entry of this.#listOnce(prefix, { ...options, after })) {
          failures = 0;
          after = entry.key;
          yield entry;
        }
        return;
      } catch (error) {
        // It goes on where it broke.
        const broken = error instanceof Broken;
        if (!broken || failures >= this.#attempts - 1) throw broken ? error.reason : error;
        await this.#pause(failures, this.#closing.signal(options));
      }
    }
  }

  async remove(keys: readonly string[], options: RemoveOptions = {}): Promise<Removed> {
    for (const key of keys) requireKey(key);
    const { prune } = options;
    this.#closing.signal(options).throwIfAborted();
    const all: Removed = { removed: [], retained: [] };
    for (const batch of batches(keys)) {
      const result = await this.#try(options, (session, signal) =>
        session.request({ op: 'remove', keys: batch, prune }, { signal }),
      );
      if (!Array.isArray(result.removed) || !Array.isArray(result.retained)) {
        throw violation('no answer to remove');
      }
      all.removed.push(...result.removed.map(String));
      all.retained.push(...result.retained.map(String));
    }
    return all;
  }

  async probe(options: CallOptions = {}): Promise<Capabilities> {
    const sent = Date.now();
    const result = await this.#try(options, (session, signal) =>
      session.request({ op: 'probe' }, { signal }),
    );
    const { now, conditionalCreate, versioning, lock } = result;
    return {
      conditionalCreate: conditionalCreate === true,
      ...(typeof versioning === 'boolean' ? { versioning } : {}),
      ...(typeof lock === 'boolean' ? { lock } : {}),
      ...(typeof now === 'number' ? { clockOffset: now - (sent + Date.now()) / 2 } : {}),
    };
  }

  async close(): Promise<void> {
    this.#closing.close();
    const session = await this.#session?.catch(() => undefined);
    session?.fail(new StoreUncertainError(`the store ${this.place} was closed`));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #got(head: Head, call: Call, options: GetOptions, signal: AbortSignal): Got {
    const { start, end } = rangeOf(options, head.size);
    const length = end - start;
    const sha256 = length === head.size ? head.sha256 : undefined;
    const body = provenBody(
      this.#arriving(call, head.key, options),
      { key: head.key, length, sha256 },
      signal,
    );
    return { ...head, body };
  }

  async *#arriving(call: Call, key: string, options: GetOptions): AsyncGenerator<Uint8Array, void> {
    // It was in the way of others before anybody began to read it.
    if (call.evicted) {
      const again = await this.get(key, options);
      if (!again) throw new StoreUncertainError(`"${key}" was removed`, { key });
      yield* again.body;
      return;
    }
    try {
      yield* call.inbox;
      await call.result;
    } finally {
      call.done();
    }
  }

  /** @throws Broken for what may be tried again */
  async *#listOnce(prefix: string, options: ListOptions): AsyncGenerator<Entry, void, void> {
    const signal = this.#closing.signal(options);
    signal.throwIfAborted();
    let call: Call | undefined;
    try {
      const session = await this.#connected();
      call = await session.call({ op: 'list', prefix, after: options.after }, signal);
      const order = new ListingOrder(prefix, options.after);
      for await (const batch of call.inbox) {
        for (const entry of decodeEntries(batch)) {
          order.take(entry.key);
          yield entry;
          signal.throwIfAborted();
        }
      }
      await call.result;
    } catch (error) {
      throw error instanceof StoreUncertainError && !signal.aborted ? new Broken(error) : error;
    } finally {
      call?.done();
    }
  }

  get #attempts(): number {
    return this.#options.attempts ?? 4;
  }

  async #try<T>(
    options: CallOptions,
    attempt: (session: StdioSession, signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const asked = this.#closing.signal(options);
    asked.throwIfAborted();
    const ms = this.#options.timeout ?? 300_000;
    const deadline = new AbortController();
    const timer = setTimeout(
      () => deadline.abort(new StoreUncertainError(`no answer within ${ms / 1000} s`)),
      ms,
    );
    const signal = AbortSignal.any([asked, deadline.signal]);
    try {
      for (let failures = 0; ; failures++) {
        try {
          const session = await unlessAborted(this.#connected(), signal);
          return await attempt(session, signal);
        } catch (error) {
          if (signal.aborted) throw signal.reason;
          if (error instanceof SourceError) throw error.reason;
          const again = error instanceof StoreUncertainError && failures < this.#attempts - 1;
          if (!again) throw error;
          await this.#pause(failures, signal);
        }
      }
    } finally {
      clearTimeout(timer);
    }
  }

  async #pause(failures: number, signal: AbortSignal): Promise<void> {
    const most = Math.min(MOST_BACK_OFF, (this.#options.backOff ?? 500) * 2 ** failures);
    await delay(most * (0.5 + Math.random() / 2), undefined, { signal }).catch(() => {
      throw signal.reason;
    });
  }

  /** One connection for all, and a new one once that has ended. */
  async #connected(): Promise<StdioSession> {
    for (;;) {
      this.#session ??= this.#connect();
      const connecting = this.#session;
      const session = await connecting.catch((error) => {
        if (this.#session === connecting) this.#session = undefined;
        throw error;
      });
      if (!session.ended) return session;
      if (this.#session === connecting) this.#session = undefined;
    }
  }

  async #connect(): Promise<StdioSession> {
    const session = await this.#options.connect();
    // One that is never greeted is not to be waited for when all is closed.
    const closed = this.#closing.signal({});
    const end = () => session.fail(closed.reason);
    try {
      closed.throwIfAborted();
      closed.addEventListener('abort', end, { once: true });
      await session.greet();
      return session;
    } catch (error) {
      session.fail(error as Error);
      throw error;
    } finally {
      closed.removeEventListener('abort', end);
    }
  }
}

/** A listing that may go on over another connection. */
class Broken {
  readonly reason: StoreUncertainError;

  constructor(reason: StoreUncertainError) {
    this.reason = reason;
  }
}

function* batches(keys: readonly string[]): Generator<string[], void, void> {
  let batch: string[] = [];
  let size = 0;
  for (const key of keys) {
    batch.push(key);
    size += Buffer.byteLength(key);
    if (size < REMOVE_BATCH) continue;
    yield batch;
    batch = [];
    size = 0;
  }
  if (batch.length > 0) yield batch;
}
