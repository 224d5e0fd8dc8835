import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import {
  Agent,
  createServer,
  type IncomingMessage,
  request as requestOf,
  type Server,
  type ServerResponse,
} from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { Writable } from 'node:stream';
import type { KeyPair } from './certificates.js';
import { delay } from './wait.js';

/**
 * What goes wrong with a request:
 * - `slow-down`: it is read and answered 503 SlowDown; the store never sees it.
 * - `reset-after-send`: the store does what was asked, and the connection is reset instead of its
 *   answer.
 * - `stall`: half of its body, or its answer, comes `stallMs` later.
 * - `truncate`: half of its body arrives at the store, or half of the answer's at the client, and
 *   the connection is closed.
 * - `flip`: one byte of its body, or of the answer's, is another one.
 */
export type Fault = 'slow-down' | 'reset-after-send' | 'stall' | 'truncate' | 'flip';

export interface Question {
  method: string;
  /** With its query. */
  path: string;
  /** Times that this method and path were asked for before, this one included. */
  attempt: number;
  /** Bytes of its body, as it says. */
  size: number;
}

/** What the proxy saw and did, in the order of arrival. */
export interface Seen extends Question {
  fault: Fault | undefined;
  /** What the store answered; undefined where it was not asked or did not answer. */
  status: number | undefined;
  /** From the first byte of the request until nothing more of it was under way. */
  ms: number;
}

export interface FaultProxyOptions {
  /** `http://host:port` of the store. */
  target: string;
  /** Clients speak TLS with it. */
  tls?: KeyPair;
  /** The same seed gives the same faults to the same questions, whatever their order. */
  seed?: number;
  /** Of every question, from 0 to 1. */
  chances?: Partial<Record<Fault, number>>;
  /** Instead of chances. */
  script?: (question: Question) => Fault | undefined;
  stallMs?: number;
  /** Of each request and of each answer. */
  latencyMs?: number;
  /** Of all connections together, in each direction. */
  bytesPerSecond?: number;
  /** The store's clock seems to be so far ahead. */
  skewMs?: number;
}

/** How far behind its time a lane may be and still catch up; so much goes at once after a rest. */
const LATENESS_MS = 50;

const SLOW_DOWN =
  '<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>';

/** An HTTP proxy on 127.0.0.1 that stands before a store and spoils what passes, on purpose. */
export class FaultProxy implements AsyncDisposable {
  readonly seen: Seen[] = [];
  /** Requests under way at the same time, at most. */
  mostAtOnce = 0;
  /** True: connections are reset when they are made or used. */
  away = false;
  options: FaultProxyOptions;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #agent = new Agent({ keepAlive: true, timeout: 5000 });
  readonly #attempts = new Map<string, number>();
  readonly #lanes = { up: { freeAt: 0 }, down: { freeAt: 0 } };
  #underWay = 0;

  private constructor(options: FaultProxyOptions) {
    this.options = options;
    const handle = (request: IncomingMessage, response: ServerResponse) =>
      void this.#handle(request, response);
    const { tls } = options;
    this.#server = tls
      ? createTlsServer({ cert: readFileSync(tls.cert), key: readFileSync(tls.key) }, handle)
      : createServer(handle);
    // What a client is patient with is the client's affair.
    this.#server.requestTimeout = 0;
    this.#server.on(tls ? 'secureConnection' : 'connection', (socket: Socket) => {
      this.#sockets.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => this.#sockets.delete(socket));
      if (this.away) reset(socket);
    });
  }

  static async listen(options: FaultProxyOptions): Promise<FaultProxy> {
    const proxy = new FaultProxy(options);
    await new Promise<void>((resolve) => proxy.#server.listen(0, '127.0.0.1', () => resolve()));
    return proxy;
  }

  get url(): string {
    const { port } = this.#server.address() as AddressInfo;
    return `${this.options.tls ? 'https' : 'http'}://127.0.0.1:${port}`;
  }

  /** How often each fault was done. */
  get faults(): Partial<Record<Fault, number>> {
    const counts: Partial<Record<Fault, number>> = {};
    for (const { fault } of this.seen) if (fault) counts[fault] = (counts[fault] ?? 0) + 1;
    return counts;
  }

  /** Resets all connections. */
  cut(): void {
    for (const socket of this.#sockets) reset(socket);
  }

  async close(): Promise<void> {
    this.cut();
    this.#agent.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const began = performance.now();
    // The request loses it when it is destroyed.
    const { socket } = request;
    const seen = this.#question(request);
    this.seen.push(seen);
    response.on('error', () => {});
    this.#underWay += 1;
    this.mostAtOnce = Math.max(this.mostAtOnce, this.#underWay);
    try {
      if (this.away) reset(socket);
      else await this.#pass(request, response, seen, socket);
    } catch {
      // One side went away: so does the other.
      reset(socket);
    } finally {
      this.#underWay -= 1;
      seen.ms = performance.now() - began;
    }
  }

  #question(request: IncomingMessage): Seen {
    const { method = '', url: path = '' } = request;
    const name = `${method} ${path}`;
    const attempt = (this.#attempts.get(name) ?? 0) + 1;
    this.#attempts.set(name, attempt);
    const size = Number(request.headers['content-length'] ?? 0);
    const question = { method, path, attempt, size };
    const { script, chances = {} } = this.options;
    const fault = script ? script(question) : this.#drawn(question, chances);
    return { ...question, fault, status: undefined, ms: 0 };
  }

  #drawn(question: Question, chances: Partial<Record<Fault, number>>): Fault | undefined {
    let left = this.#chance(question, 'fault');
    for (const [fault, chance] of Object.entries(chances) as [Fault, number][]) {
      if (left < chance) return fault;
      left -= chance;
    }
    return undefined;
  }

  /** From 0 to 1, and always the same for a question, whatever came before it. */
  #chance({ method, path, attempt }: Question, what: string): number {
    const text = JSON.stringify([this.options.seed ?? 1, method, path, attempt, what]);
    return createHash('sha256').update(text).digest().readUIntBE(0, 6) / 2 ** 48;
  }

  async #pass(
    request: IncomingMessage,
    response: ServerResponse,
    seen: Seen,
    socket: Socket,
  ): Promise<void> {
    const { latencyMs = 0, stallMs = 30_000 } = this.options;
    const { fault, size } = seen;
    if (latencyMs > 0) await delay(latencyMs);
    const inBody = size > 0 && (fault !== 'stall' || this.#chance(seen, 'where') < 0.5);
    if (fault === 'slow-down') {
      for await (const _ of request) if (this.away) throw new Error('away');
      response.writeHead(503, { 'content-type': 'application/xml' }).end(SLOW_DOWN);
      return;
    }
    const answer = await this.#forwarded(request, seen, socket, inBody ? fault : undefined);
    seen.status = answer.statusCode;
    if (fault === 'reset-after-send') {
      for await (const _ of answer);
      throw new Error('reset');
    }
    if (fault === 'stall' && !inBody) await this.#stall(stallMs, socket);
    if (latencyMs > 0) await delay(latencyMs);
    await this.#answer(answer, response, seen, inBody ? undefined : fault);
  }

  /** Hands a request to the store. @returns the head of its answer */
  async #forwarded(
    request: IncomingMessage,
    seen: Seen,
    socket: Socket,
    fault?: Fault,
  ): Promise<IncomingMessage> {
    const { hostname, port } = new URL(this.options.target);
    const { method, path, size } = seen;
    const forward = requestOf({
      ...{ hostname, port, method, path, agent: this.#agent },
      headers: request.rawHeaders as unknown as Record<string, string>,
    });
    const gone = () => forward.destroy(new Error('the client is gone'));
    socket.once('close', gone);
    const answered = new Promise<IncomingMessage>((resolve, reject) => {
      forward.on('response', resolve);
      forward.on('error', reject);
    });
    answered.catch(() => {});
    forward.on('close', () => socket.removeListener('close', gone));
    let passed = 0;
    for await (const chunk of request as AsyncIterable<Buffer>) {
      const half = size >> 1;
      const atHalf = passed <= half && passed + chunk.length > half;
      passed += chunk.length;
      if (fault === 'flip' && atHalf) flip(chunk, half - (passed - chunk.length));
      if (fault === 'truncate' && atHalf) {
        forward.write(chunk.subarray(0, half - (passed - chunk.length)));
        forward.destroy();
        throw new Error('truncated');
      }
      if (fault === 'stall' && atHalf) {
        await this.#stall(this.options.stallMs ?? 30_000, socket);
      }
      await this.#turn(this.#lanes.up, chunk.length);
      if (!forward.write(chunk)) await drained(forward);
    }
    forward.end();
    return answered;
  }

  async #answer(
    answer: IncomingMessage,
    response: ServerResponse,
    { method }: Seen,
    fault?: Fault,
  ): Promise<void> {
    const size = method === 'HEAD' ? 0 : Number(answer.headers['content-length'] ?? 0);
    const half = size >> 1;
    response.sendDate = false;
    response.writeHead(answer.statusCode ?? 0, answer.statusMessage ?? '', this.#headers(answer));
    if (fault === 'truncate' && size === 0) throw new Error('truncated');
    let passed = 0;
    for await (const chunk of answer as AsyncIterable<Buffer>) {
      const atHalf = passed <= half && passed + chunk.length > half;
      const before = passed;
      passed += chunk.length;
      if (fault === 'flip' && atHalf) flip(chunk, half - before);
      if (fault === 'truncate' && atHalf) {
        await taken(response, (done) => response.write(chunk.subarray(0, half - before), done));
        response.destroy();
        return;
      }
      await this.#turn(this.#lanes.down, chunk.length);
      if (!response.write(chunk)) await drained(response);
    }
    await taken(response, (done) => response.end(done));
  }

  #headers(answer: IncomingMessage): string[] {
    const { skewMs = 0 } = this.options;
    return answer.rawHeaders.map((value, i) => {
      const name = answer.rawHeaders[i - 1]?.toLowerCase();
      if (skewMs === 0 || i % 2 === 0 || name !== 'date') return value;
      return new Date(Date.parse(value) + skewMs).toUTCString();
    });
  }

  /**
   * Ends early where the client has given up: nobody is left to be kept waiting. In the middle of a
   * body that is seen only afterwards, since a socket that is not read does not tell its end.
   */
  async #stall(ms: number, socket: Socket): Promise<void> {
    if (socket.destroyed) throw new Error('the client gave up');
    await new Promise<void>((resolve, reject) => {
      const gone = () => {
        clearTimeout(timer);
        reject(new Error('the client gave up'));
      };
      const timer = setTimeout(() => {
        socket.removeListener('close', gone);
        resolve();
      }, ms);
      socket.once('close', gone);
    });
  }

  /** Waits until a lane of limited width has room: one after the other. */
  async #turn(lane: { freeAt: number }, bytes: number): Promise<void> {
    const { bytesPerSecond } = this.options;
    if (!bytesPerSecond) return;
    const now = performance.now();
    // What a timer came too late is made up for: a lane that lost it each time would be a third narrower.
    lane.freeAt = Math.max(lane.freeAt, now - LATENESS_MS) + (bytes / bytesPerSecond) * 1000;
    // Timers are coarse: what comes due within one of them may go.
    if (lane.freeAt - now > 2) await delay(lane.freeAt - now);
  }
}

function flip(chunk: Buffer, at: number): void {
  chunk[at] = (chunk[at] as number) ^ 0x10;
}

/** Waits until it has been done; of a client that goes meanwhile nobody tells that it has not. */
async function taken(response: ServerResponse, act: (done: () => void) => void): Promise<void> {
  if (response.destroyed) throw new Error('gone');
  await new Promise<void>((resolve) => {
    response.once('close', resolve);
    act(resolve);
  });
}

function drained(stream: Writable): Promise<void> {
  if (stream.destroyed) throw new Error('gone');
  return new Promise((resolve, reject) => {
    const done = (then: () => void) => () => {
      for (const [name, listener] of listeners) stream.removeListener(name, listener);
      then();
    };
    const gone = () => reject(new Error('gone'));
    const listeners: [string, () => void][] = [
      ['drain', done(resolve)],
      ['close', done(gone)],
      ['error', done(gone)],
    ];
    for (const [name, listener] of listeners) stream.once(name, listener);
  });
}

/** A socket of TLS cannot be reset itself. */
function reset(socket: Socket): void {
  if (socket.destroyed) return;
  if ('encrypted' in socket) socket.destroy();
  else socket.resetAndDestroy();
}
