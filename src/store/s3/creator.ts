import { randomUUID } from 'node:crypto';
import { Readable } from 'node:stream';
import { StoreAccessError, StoreUncertainError, StoreUnsupportedError } from '../../errors.js';
import { unlessAborted } from '../aborted.js';
import { contentOf, requireMetadata } from '../content.js';
import { RESERVED } from '../key.js';
import type { Content, Created, CreateOptions } from '../store.js';
import { sendable } from './body.js';
import type { Answer, S3Client, S3Request } from './client.js';
import { contested, glance, look } from './look.js';
import { objectHeaders, type Seen } from './object-headers.js';
import { refusalOf } from './refusals.js';
import type { Tries } from './tries.js';

/** Objects that come and go before one can be created. */
const MOST_ROUNDS = 10;

/** Of Google: takes the condition for reading only, and would overwrite. */
const IGNORES_CONDITION = /(^|\.)storage\.googleapis\.com(:\d+)?$/;
/** Keeps the condition whatever else a bucket does. */
const KEEPS_CONDITION = /\.amazonaws\.com(\.cn)?(:\d+)?$/;

/** An object that no caller can name, nor see in a listing. */
const MARK = `${RESERVED}/created-once`;
const MARK_CONTENT = contentOf(
  Buffer.from('walkeep creates this again and again, to see that it is refused.\n'),
);

/** By what a call knows its own object again. */
interface Own {
  token: string;
  sha256: string;
}

/** Creates objects where there are none, and knows by what the service has answered if it can. */
export class Creator {
  readonly #client: S3Client;
  readonly #place: string;
  /** The service does not know or does not heed the condition. */
  #overwrites = false;
  /** It is known, or is being tried, whether the service heeds the condition. */
  #proof: Promise<void> | undefined;
  /** The bucket keeps versions, and that has been tried, or need not be. */
  #versions = false;
  /** What the service's name says of it is known. */
  #named = false;
  /** The service wants a checksum with all that it is to lock. */
  #checksum = false;

  constructor(client: S3Client, place: string) {
    this.#client = client;
    this.#place = place;
  }

  async #name(): Promise<void> {
    if (this.#named) return;
    await this.#client.settle();
    if (this.#named) return;
    this.#named = true;
    const { host } = this.#client.address;
    this.#overwrites = IGNORES_CONDITION.test(host);
    this.#versions = KEEPS_CONDITION.test(host);
    if (this.#versions) this.#proof = Promise.resolve();
  }

  /** What a trial has shown. */
  learn(conditional: boolean): void {
    this.#overwrites = !conditional;
    this.#proof = Promise.resolve();
  }

  /** `unfenced`: looks first, and is content with that. */
  async create(
    key: string,
    content: Content,
    options: CreateOptions,
    unfenced: boolean,
  ): Promise<Created> {
    const own: Own = { token: options.token ?? randomUUID(), sha256: content.sha256 };
    requireMetadata({ token: own.token });
    const tries = this.#client.tries('create', options.signal);
    try {
      await this.#name();
      // In the time for all of it, too.
      if (!unfenced && !this.#overwrites) await this.#proven(tries);
      if (this.#overwrites && !unfenced) throw this.#unsupported();
      for (let round = 1; ; round++) {
        // The condition that is sent may not be heeded: all that is left to do is to look.
        const before = unfenced ? await look(this.#client, key, tries.signal) : undefined;
        if (before) return asCreated(before, own);
        const request = this.#request(key, content, options, own.token);
        const { answer, ...failed } = await this.#client.attempt(request, tries.signal);
        if (answer?.status === 412) {
          const seen = await look(this.#client, key, tries.signal);
          if (seen) return asCreated(seen, own);
          if (round >= MOST_ROUNDS) throw contested(key);
        } else if (answer) {
          if (!this.#isCreated(answer, key, unfenced)) continue;
          this.#noticeVersions(answer);
          return { created: true };
        } else if (failed.error) {
          await tries.again(failed.error, failed.pauseMs);
          if (failed.answered) continue;
          // A service that closes the connection without taking the bytes would do so for ever.
          const seen = await glance(this.#client, key, tries.signal);
          if (seen) return asCreated(seen, own);
        }
      }
    } finally {
      tries.release();
    }
  }

  #request(key: string, content: Content, { meta }: CreateOptions, token: string): S3Request {
    const { size, sha256 } = content;
    return {
      method: 'PUT',
      what: `create "${key}"`,
      key,
      headers: {
        ...objectHeaders(meta ?? {}, sha256, token),
        ...(!this.#overwrites && { 'If-None-Match': '*' }),
        ...this.#checksumOf(sha256),
      },
      body: { size, sha256, open: (signal) => sendable(key, content, signal) },
    };
  }

  /** False: it is to be tried in another way, which is now known. @throws whatever else it is */
  #isCreated(answer: Answer, key: string, unfenced: boolean): boolean {
    const { status, headers } = answer;
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
    if (!this.#learnsChecksum(answer)) throw refusalOf(answer, `create "${key}"`, key);
    return false;
  }

  /** True if it is to be tried with a checksum, which had none so far. */
  #learnsChecksum({ code, message }: Answer): boolean {
    const wanted = code === 'InvalidRequest' && /checksum|Content-MD5/i.test(message);
    if (!wanted || this.#checksum) return false;
    this.#checksum = true;
    return true;
  }

  #checksumOf(sha256: string): Record<string, string> {
    if (!this.#checksum) return {};
    return { 'x-amz-checksum-sha256': Buffer.from(sha256, 'hex').toString('base64') };
  }

  /** What others began to ask may be given up while there is time left here. */
  async #proven(tries: Tries): Promise<void> {
    for (;;) {
      try {
        return await unlessAborted(this.#prove(), tries.signal);
      } catch (error) {
        tries.signal.throwIfAborted();
        if (!(error instanceof StoreUncertainError)) throw error;
        await tries.again(error);
      }
    }
  }

  /**
   * Before the first object, since a service that does not heed the condition overwrites without a
   * word; some heed it until the bucket keeps versions, which can be switched on at any time (Ceph 16).
   */
  #prove(): Promise<void> {
    this.#proof ??= this.#tryMark().catch((error) => {
      this.#proof = undefined;
      throw error;
    });
    return this.#proof;
  }

  /**
   * Creates an object that is left where it is, so that mostly it is there and refused at once. Only
   * that refusal proves anything: who is refused for another reason has not seen what the service does.
   */
  async #tryMark(): Promise<void> {
    const { open, ...content } = MARK_CONTENT;
    const what = `create "${MARK}"`;
    for (let created = 0; created < 2; ) {
      const answer = await this.#client.send({
        method: 'PUT',
        what,
        key: MARK,
        headers: { 'If-None-Match': '*', ...this.#checksumOf(content.sha256) },
        body: { ...content, open: () => Readable.from(open()) },
      });
      const { status } = answer;
      if (status === 412) return;
      if (status === 501) break;
      if (status < 300) created++;
      else if (!this.#learnsChecksum(answer)) throw refusalOf(answer, what, MARK);
    }
    this.#overwrites = true;
  }

  /** The next create has to be proven again. */
  #noticeVersions({ headers }: Answer): void {
    if (this.#versions || headers['x-amz-version-id'] === undefined) return;
    this.#versions = true;
    this.#proof = undefined;
  }

  #unsupported(cause?: unknown): StoreUnsupportedError {
    return new StoreUnsupportedError(`${this.#place} cannot create only what is absent`, {
      cause,
      hint: 'Use a service that knows conditional writes, also in a bucket that keeps versions, or open it unfenced with one writer only.',
    });
  }
}

/** An object is the call's own if the call's mark is on it, whatever answers were lost. */
function asCreated({ head, token }: Seen, own: Own): Created {
  const ours = token === own.token && head.sha256 === own.sha256;
  return ours ? { created: true } : { created: false, found: head };
}
