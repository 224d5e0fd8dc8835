import { randomUUID } from 'node:crypto';
import { StoreAccessError, StoreUncertainError, StoreUnsupportedError } from '../../errors.js';
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
} from '../store.js';
import { receiving, sendable } from './body.js';
import { type Answer, S3Client, type S3Request } from './client.js';
import {
  type CredentialSource,
  resolveCredentials,
  resolveRegion,
} from './credentials/credentials.js';
import { listed } from './list.js';
import { objectHeaders, rangeIn, type Seen, seenIn } from './object-headers.js';
import { probe } from './probe.js';
import { refusalOf } from './refusals.js';
import { removeAll } from './remove.js';
import { PATIENCE, type Patience } from './tries.js';

export interface S3StoreOptions {
  /** Also a service that cannot create only what is absent: two writers can then overwrite each other. */
  unfenced?: boolean | undefined;
  /** Milliseconds; see there. */
  patience?: Partial<Patience> | undefined;
  env?: Readonly<Record<string, string | undefined>> | undefined;
  credentials?: CredentialSource | undefined;
  /** This machine's clock. */
  now?: (() => number) | undefined;
}

/** Objects that came and went before one could be created or seen. */
const MOST_ROUNDS = 10;

/** It takes `If-None-Match` for reading only, and would overwrite. */
const IGNORES_CONDITION = /(^|\.)storage\.googleapis\.com(:\d+)?$/;

export class S3Store implements ObjectStore {
  readonly place: string;
  readonly #client: S3Client;
  readonly #unfenced: boolean;
  readonly #closing: Closing;
  readonly #closed: AbortSignal;
  /** It was seen that the service overwrites. */
  #overwrites = false;
  /** The service wants a checksum with all that it is to lock. */
  #checksum = false;

  constructor(place: S3Place, options: S3StoreOptions = {}) {
    const env = options.env ?? process.env;
    this.place = place.text;
    this.#unfenced = options.unfenced ?? false;
    this.#closing = new Closing(place.text);
    this.#closed = this.#closing.signal({});
    this.#client = new S3Client(place, {
      env,
      region: () => resolveRegion(place, env),
      credentials: options.credentials ?? resolveCredentials(place, env),
      patience: { ...PATIENCE, ...options.patience },
      now: options.now,
      closed: this.#closed,
    });
    this.#overwrites = IGNORES_CONDITION.test(this.#client.address.host);
  }

  async create(key: string, content: Content, options: CreateOptions = {}): Promise<Created> {
    requireKey(key);
    requireContent(content);
    requireMetadata(options.meta);
    return this.#create(key, content, options, this.#unfenced);
  }

  async #create(
    key: string,
    content: Content,
    options: CreateOptions,
    unfenced: boolean,
  ): Promise<Created> {
    if (this.#overwrites && !unfenced) throw this.#unsupported();
    const createdBy = randomUUID();
    const tries = this.#client.tries('create', options.signal);
    try {
      for (let round = 1; ; round++) {
        // The condition that is sent may not be heeded: all that is left to do is to look.
        const before = unfenced ? await this.#look(key, tries.signal) : undefined;
        if (before) return asCreated(before, createdBy);
        const attempt = await this.#client.attempt(
          this.#creation(key, content, options, createdBy),
          tries.signal,
        );
        if (attempt.answer) {
          if (attempt.answer.status === 412) {
            const seen = await this.#look(key, tries.signal);
            if (seen) return asCreated(seen, createdBy);
            if (round >= MOST_ROUNDS) throw contested(key);
          } else if (this.#isCreated(attempt.answer, key, unfenced)) {
            return { created: true };
          }
          continue;
        }
        await tries.again(attempt.error, attempt.pauseMs);
        // A service that closes the connection without taking the bytes would do so for ever.
        const seen = attempt.answered ? undefined : await this.#glance(key, tries.signal);
        if (seen) return asCreated(seen, createdBy);
      }
    } finally {
      tries.release();
    }
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
    if (answer.status === 404 && answer.code === 'NoSuchKey') return undefined;
    throw refusalOf(answer, `give "${key}"`, key);
  }

  async head(key: string, options: CallOptions = {}): Promise<Head | undefined> {
    requireKey(key);
    return (await this.#look(key, options.signal))?.head;
  }

  list(prefix: string, options: ListOptions = {}): AsyncIterable<Entry> {
    return listed(this.#client, prefix, options);
  }

  async remove(keys: readonly string[], options: CallOptions = {}): Promise<Removed> {
    for (const key of keys) requireKey(key);
    return removeAll(this.#client, keys, options.signal);
  }

  async probe(options: CallOptions = {}): Promise<Capabilities> {
    // Always as if it were fenced: what is asked is what the service does by itself.
    const create = (key: string, content: Content, given: CallOptions) =>
      this.#create(key, content, given, false);
    const remove = (keys: readonly string[], given: CallOptions) => this.remove(keys, given);
    const found = await probe({ create, remove }, this.#client, options.signal);
    this.#overwrites = !found.conditionalCreate;
    return found;
  }

  async close(): Promise<void> {
    this.#closing.close();
    this.#client.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #creation(key: string, content: Content, { meta }: CreateOptions, createdBy: string): S3Request {
    const { size, sha256 } = content;
    return {
      method: 'PUT',
      what: `create "${key}"`,
      key,
      headers: {
        ...objectHeaders(meta ?? {}, sha256, createdBy),
        ...(!this.#overwrites && { 'If-None-Match': '*' }),
        ...(this.#checksum && {
          'x-amz-checksum-sha256': Buffer.from(sha256, 'hex').toString('base64'),
        }),
      },
      body: { size, sha256, open: (signal) => sendable(key, content, signal) },
    };
  }

  /** False: it is to be tried in another way, which is now known. @throws whatever else it is */
  #isCreated(answer: Answer, key: string, unfenced: boolean): boolean {
    const { status, headers, code, message } = answer;
    if (status < 300) {
      if (headers.etag) return true;
      throw new StoreAccessError(`the store does not answer as S3 does for "${key}"`, {
        key,
        hint: 'See whether the endpoint is a service of S3.',
      });
    }
    if (status === 501) {
      this.#overwrites = true;
      if (unfenced) return false;
      throw this.#unsupported(refusalOf(answer, `create "${key}"`, key));
    }
    const wantsChecksum = code === 'InvalidRequest' && /checksum|Content-MD5/i.test(message);
    if (!wantsChecksum || this.#checksum) throw refusalOf(answer, `create "${key}"`, key);
    this.#checksum = true;
    return false;
  }

  /**
   * An object's headers. HEAD answers without a text, so that a key and a bucket that are not there
   * look the same, and so do all refusals: whatever it does not give, GET has to explain.
   */
  async #look(key: string, signal: AbortSignal | undefined): Promise<Seen | undefined> {
    const what = `say what "${key}" is`;
    for (let round = 1; round <= MOST_ROUNDS; round++) {
      const answer = await this.#client.send({ method: 'HEAD', what, key }, signal);
      if (answer.status < 300) return seenIn(key, answer.headers);
      const got = await this.#client.send({ method: 'GET', what, key, stream: true }, signal);
      got.body?.destroy();
      if (got.status === 404 && got.code === 'NoSuchKey') return undefined;
      if (got.status >= 300) throw refusalOf(got, what, key);
    }
    throw contested(key);
  }

  /** As `#look`, but what cannot be seen now is not looked for any longer. */
  async #glance(key: string, signal: AbortSignal): Promise<Seen | undefined> {
    const { answer } = await this.#client.attempt(
      { method: 'HEAD', what: `say what "${key}" is`, key },
      signal,
    );
    return answer && answer.status < 300 ? seenIn(key, answer.headers) : undefined;
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

  #unsupported(cause?: unknown): StoreUnsupportedError {
    return new StoreUnsupportedError(`${this.place} cannot create only what is absent`, {
      cause,
      hint: 'Use a service that knows conditional writes, or open it unfenced with one writer only.',
    });
  }
}

async function* nothing(): AsyncGenerator<Uint8Array, void, void> {}

/** An object is the call's own if the call's mark is on it, whatever answers were lost. */
function asCreated({ head, createdBy }: Seen, ours: string): Created {
  return createdBy === ours ? { created: true } : { created: false, found: head };
}

function contested(key: string): StoreUncertainError {
  return new StoreUncertainError(`"${key}" comes and goes`, { key });
}
