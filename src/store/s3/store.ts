import { StoreUncertainError } from '../../errors.js';
import { Closing } from '../closing.js';
import { requireContent, requireMetadata, requireRange } from '../content.js';
import { requireKey } from '../key.js';
import type { S3Place } from '../place.js';
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
import { receiving } from './body.js';
import { type Answer, S3Client } from './client.js';
import { Creator } from './creator.js';
import {
  type CredentialSource,
  resolveCredentials,
  resolveSettings,
} from './credentials/credentials.js';
import { listed } from './list.js';
import { isAbsent, look } from './look.js';
import { rangeIn, seenIn } from './object-headers.js';
import { refusalOf } from './refusals.js';
import { type Failing, PATIENCE, type Patience } from './tries.js';

export interface S3StoreOptions {
  /** Also a service that cannot create only what is absent: two writers can then overwrite each other. */
  unfenced?: boolean | undefined;
  /** Milliseconds; see there. */
  patience?: Partial<Patience> | undefined;
  failing?: Failing | undefined;
  env?: Readonly<Record<string, string | undefined>> | undefined;
  credentials?: CredentialSource | undefined;
  /** This machine's clock. */
  now?: (() => number) | undefined;
}

export class S3Store implements ObjectStore {
  readonly place: string;
  readonly #client: S3Client;
  readonly #unfenced: boolean;
  readonly #closing: Closing;
  readonly #closed: AbortSignal;
  readonly #creator: Creator;

  constructor(place: S3Place, options: S3StoreOptions = {}) {
    const env = options.env ?? process.env;
    this.place = place.text;
    this.#unfenced = options.unfenced ?? false;
    this.#closing = new Closing(place.text);
    this.#closed = this.#closing.signal({});
    this.#client = new S3Client(place, {
      env,
      settings: () => resolveSettings(place, env),
      credentials: options.credentials ?? resolveCredentials(place, env),
      patience: { ...PATIENCE, ...options.patience },
      failing: options.failing,
      now: options.now,
      closed: this.#closed,
    });
    this.#creator = new Creator(this.#client, place.text);
  }

  async create(key: string, content: Content, options: CreateOptions = {}): Promise<Created> {
    requireKey(key);
    requireContent(content);
    requireMetadata(options.meta);
    return this.#creator.create(key, content, options, this.#unfenced);
  }

  async get(key: string, options: GetOptions = {}): Promise<Got | undefined> {
    requireKey(key);
    requireRange(options.range);
    const { range, signal } = options;
    if (range && range.start === range.end) return this.#empty(key, signal);
    const answer = await this.#client.send(
      {
        method: 'GET',
        what: `give "${key}"`,
        key,
        stream: true,
        ...(range && { headers: { Range: `bytes=${range.start}-${range.end - 1}` } }),
      },
      signal,
    );
    // The range begins behind the end.
    if (answer.status === 416 && range) return this.#empty(key, signal);
    if (answer.body) return this.#got(key, answer, options);
    if (isAbsent(answer)) return undefined;
    throw refusalOf(answer, `give "${key}"`, key);
  }

  async head(key: string, options: CallOptions = {}): Promise<Head | undefined> {
    requireKey(key);
    return (await look(this.#client, key, options.signal))?.head;
  }

  list(prefix: string, options: ListOptions = {}): AsyncIterable<Entry> {
    return listed(this.#client, prefix, options);
  }

  async remove(keys: readonly string[], options: RemoveOptions = {}): Promise<Removed> {
    for (const key of keys) requireKey(key);
    const { removeAll } = await import('./remove.js');
    return removeAll(this.#client, keys, options.signal);
  }

  async probe(options: CallOptions = {}): Promise<Capabilities> {
    // Always as if it were fenced: what is asked is what the service does by itself.
    const create = (key: string, content: Content, given: CallOptions) =>
      this.#creator.create(key, content, given, false);
    const remove = (keys: readonly string[], given: CallOptions) => this.remove(keys, given);
    const { probe } = await import('./probe.js');
    const found = await probe({ create, remove }, this.#client, options.signal);
    this.#creator.learn(found.conditionalCreate);
    return found;
  }

  async close(): Promise<void> {
    this.#closing.close();
    this.#client.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #got(key: string, answer: Answer, { range, signal }: GetOptions): Got {
    const message = answer.body as NonNullable<Answer['body']>;
    try {
      const { head } = seenIn(key, answer.headers);
      const given = rangeIn(key, answer.headers, head.size);
      const wanted = range
        ? { start: range.start, end: Math.min(range.end, head.size) }
        : { start: 0, end: head.size };
      if (given.start !== wanted.start || given.end !== wanted.end) {
        throw new StoreUncertainError(
          `the store gives bytes ${given.start} to ${given.end} of "${key}", not ${wanted.start} to ${wanted.end}`,
          { key },
        );
      }
      const whole = wanted.start === 0 && wanted.end === head.size;
      const body = receiving(message, {
        key,
        host: this.#client.address.host,
        length: wanted.end - wanted.start,
        sha256: whole ? head.sha256 : undefined,
        patience: this.#client.patience,
        signals: [signal, this.#closed],
      });
      return { ...head, body };
    } catch (error) {
      message.destroy();
      throw error;
    }
  }

  async #empty(key: string, signal: AbortSignal | undefined): Promise<Got | undefined> {
    const head = await this.head(key, { signal });
    return head && { ...head, body: nothing() };
  }
}

async function* nothing(): AsyncGenerator<Uint8Array, void, void> {}
