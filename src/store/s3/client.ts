import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import { StoreUncertainError, WalkeepError } from '../../errors.js';
import type { S3Place } from '../place.js';
import { Address } from './address.js';
import { refusalIn, textOf } from './answers.js';
import type { CredentialSource, Credentials } from './credentials/credentials.js';
import { failureOf } from './failures.js';
import { Pace } from './pace.js';
import {
  type Answered,
  isPassing,
  isTooMuch,
  refusalOf,
  wantsOtherCredentials,
} from './refusals.js';
import { EMPTY_SHA256, signed } from './signing.js';
import { type HttpResponse, Transport } from './transport.js';
import { Deadline, type Failing, type Patience, Tries, timeFor } from './tries.js';

/** What is asked of the service, before it is addressed and signed. */
export interface S3Request {
  method: 'GET' | 'HEAD' | 'PUT' | 'POST' | 'DELETE';
  /** What is to be done, as a verb, for messages. */
  what: string;
  /** Below the place's prefix; undefined: the bucket itself is meant. */
  key?: string;
  query?: Readonly<Record<string, string>>;
  headers?: Readonly<Record<string, string>>;
  body?: { size: number; sha256: string; open(signal: AbortSignal): AsyncIterable<Uint8Array> };
  /** The body of a good answer is not read, but given. */
  stream?: boolean;
}

export interface Answer extends Answered {
  headers: IncomingHttpHeaders;
  /** Of a good answer, where it was not asked for as a stream. */
  text: string;
  /** Of a good answer that was asked for as a stream. */
  body?: IncomingMessage;
}

/** One attempt: answered, or the error that passes. */
export type Attempt =
  | { answer: Answer; error?: undefined }
  | { answer?: undefined; error: WalkeepError; answered: boolean; pauseMs: number };

export interface ClientOptions {
  /** What is configured beside the place: its region, the usual one without it, and its service. */
  settings: () => Promise<{ region: string | undefined; endpoint: string | undefined }>;
  env: Readonly<Record<string, string | undefined>>;
  credentials: CredentialSource;
  patience: Patience;
  failing?: Failing | undefined;
  /** Milliseconds since 1970 by this machine. */
  now?: (() => number) | undefined;
  /** Ends all that is under way. */
  closed: AbortSignal;
}

/** Steps that an attempt takes at once, such as to the region that the service names. */
const MOST_STEPS = 4;
const DOUBT_MS = 60_000;

/**
 * Asks the service until it answers. Any answer that does not pass comes back, good or bad; what is
 * wrong with where, when or by whom it was asked is put right where the answer says how.
 */
export class S3Client {
  readonly address: Address;
  readonly pace = new Pace();
  readonly patience: Patience;
  readonly #failing: Failing | undefined;
  readonly closed: AbortSignal;
  readonly #transport: Transport;
  readonly #credentials: CredentialSource;
  readonly #settings: ClientOptions['settings'];
  #settled: Promise<void> | undefined;
  /** When a missing right is next taken for outdated credentials. */
  #doubtAgain = 0;
  readonly #now: () => number;
  /** Milliseconds that the service is ahead of this machine, once it has complained. */
  #offset = 0;
  #measured: number | undefined;

  constructor(place: S3Place, options: ClientOptions) {
    const { env, settings, credentials, patience, failing, closed, now = Date.now } = options;
    this.address = new Address(place, env.AWS_REGION || env.AWS_DEFAULT_REGION);
    this.#settings = settings;
    this.#transport = new Transport({ ca: place.ca, env });
    this.#credentials = credentials;
    this.patience = patience;
    this.#failing = failing;
    this.closed = closed;
    this.#now = now;
  }

  /** What the last answer showed: milliseconds that the service's clock is ahead of this machine's. */
  get clockOffset(): number | undefined {
    return this.#measured;
  }

  close(): void {
    this.#transport.close();
  }

  tries(what: string, signal?: AbortSignal): Tries {
    return new Tries(this.patience, `to ${what}`, [signal, this.closed], this.#failing);
  }

  /** @throws StoreUncertainError, StoreAccessError where nobody could be asked, the signal's reason */
  async send(request: S3Request, signal?: AbortSignal): Promise<Answer> {
    const tries = this.tries(request.what, signal);
    try {
      for (;;) {
        const attempt = await this.attempt(request, tries.signal);
        if (attempt.answer) return attempt.answer;
        await tries.again(attempt.error, attempt.pauseMs);
      }
    } finally {
      tries.release();
    }
  }

  /** Asks once. @throws what does not pass and is no answer */
  async attempt(request: S3Request, signal: AbortSignal): Promise<Attempt> {
    const leave = await this.pace.enter(signal);
    try {
      const answer = await this.#answered(request, signal);
      const passing = answer.status >= 300 && isPassing(answer);
      leave(isTooMuch(answer) ? 'slow' : passing ? 'unclear' : 'good');
      if (!passing) return { answer };
      const error = refusalOf(answer, request.what, request.key);
      return { error, answered: true, pauseMs: retryAfter(answer.headers) };
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof StoreUncertainError)) throw error;
      return { error, answered: false, pauseMs: 0 };
    } finally {
      leave('unclear');
    }
  }

  /** Follows what the answers say is wrong with how it was asked, each once or twice. */
  async #answered(request: S3Request, signal: AbortSignal): Promise<Answer> {
    await this.settle();
    let credentials = await this.#credentials.get(signal);
    for (let step = 1; ; step++) {
      const answer = await this.#once(request, credentials, signal);
      if (answer.status < 300 || step === MOST_STEPS) return answer;
      if (this.#mayBeOutdated(answer)) {
        this.#credentials.invalidate(credentials, wantsOtherCredentials(answer));
        const others = await this.#credentials.get(signal);
        if (isSame(others, credentials)) return answer;
        credentials = others;
      } else if (!this.#corrected(answer)) {
        return answer;
      }
    }
  }

  /** Some services call by the name of a missing right what are keys that they do not know any more. */
  #mayBeOutdated(answer: Answer): boolean {
    if (wantsOtherCredentials(answer)) return true;
    if (answer.status !== 403 || answer.code === 'RequestTimeTooSkewed') return false;
    // Rights that are really missing must not have the origin asked each time.
    const doubtful = performance.now() >= this.#doubtAgain;
    if (doubtful) this.#doubtAgain = performance.now() + DOUBT_MS;
    return doubtful;
  }

  /** Before the service is asked: where it is may stand in a file, which is read once. */
  settle(): Promise<void> {
    this.#settled ??= this.#settings().then((settings) => this.address.settle(settings));
    this.#settled.catch(() => {
      this.#settled = undefined;
    });
    return this.#settled;
  }

  #corrected(answer: Answer): boolean {
    if (answer.code === 'RequestTimeTooSkewed' && this.#measured !== undefined) {
      this.#offset = this.#measured;
      return true;
    }
    const { status, headers, code } = answer;
    const region = answer.region ?? one(headers['x-amz-bucket-region']);
    const misplaced = status === 301 || code === 'AuthorizationHeaderMalformed';
    if (misplaced && region && region !== this.address.region) {
      this.address.moveTo(region);
      return true;
    }
    const location = headers.location;
    return status === 307 && location !== undefined && this.address.redirect(location);
  }

  async #once(request: S3Request, credentials: Credentials, signal: AbortSignal): Promise<Answer> {
    const { method, key, query, headers = {}, body, what } = request;
    const target = this.address.target(key, query);
    const ms = timeFor(body?.size ?? 0, this.patience);
    const late = () => new StoreUncertainError(`${target.host} did not ${what} within ${ms} ms`);
    const deadline = new Deadline(ms, late, [signal]);
    try {
      const sending = {
        method,
        target,
        headers: signed(
          { method, target, headers, sha256: body?.sha256 ?? EMPTY_SHA256 },
          credentials,
          this.address.region,
          new Date(this.#now() + this.#offset),
        ),
        body: body?.open(deadline.signal),
      };
      // Not signed: something on the way may change it.
      if (body) sending.headers['Content-Length'] = String(body.size);
      const asked = this.#now();
      const response = await this.#transport.exchange(sending, deadline.signal);
      this.#measure(response.message.headers.date, asked);
      return await this.#read(response, request, deadline.signal);
    } catch (error) {
      deadline.signal.throwIfAborted();
      throw error;
    } finally {
      deadline.release();
    }
  }

  async #read(response: HttpResponse, request: S3Request, signal: AbortSignal): Promise<Answer> {
    const { status, message, sentWhole } = response;
    const { headers } = message;
    const good = status >= 200 && status < 300;
    const answer: Answer = { status, headers, code: '', message: '', text: '' };
    if (good && request.stream) return { ...answer, body: message };
    const abort = () => message.destroy();
    signal.addEventListener('abort', abort, { once: true });
    try {
      if (signal.aborted) abort();
      answer.text = await textOf(message);
      // The rest of the request is not sent; the connection cannot have another one.
      if (!sentWhole) message.destroy();
    } catch (error) {
      throw error instanceof WalkeepError ? error : failureOf(error, this.address.host);
    } finally {
      signal.removeEventListener('abort', abort);
    }
    if (!good) return { ...answer, ...(await refusalIn(answer.text)) };
    if (sentWhole) return answer;
    throw new StoreUncertainError('the store answered before it had all that was to be stored');
  }

  /** The header has whole seconds: it was at least so late. */
  #measure(date: string | undefined, asked: number): void {
    const theirs = date === undefined ? Number.NaN : Date.parse(date);
    if (Number.isNaN(theirs)) return;
    this.#measured = Math.round(theirs + 500 - (asked + this.#now()) / 2);
  }
}

function isSame(one: Credentials, other: Credentials): boolean {
  return (
    one.accessKeyId === other.accessKeyId &&
    one.secretAccessKey === other.secretAccessKey &&
    one.sessionToken === other.sessionToken
  );
}

function one(header: string | string[] | undefined): string | undefined {
  return Array.isArray(header) ? header[0] : header;
}

function retryAfter(headers: IncomingHttpHeaders): number {
  const seconds = Number(headers['retry-after']);
  return seconds > 0 ? seconds * 1000 : 0;
}
