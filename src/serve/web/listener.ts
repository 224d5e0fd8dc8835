import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createSecureServer, type Server as SecureServer } from 'node:https';
import type { AddressInfo, Server, Socket } from 'node:net';
import { ConnectionError } from '../../errors.js';
import { reason } from '../../files/durable.js';
import type { Listen } from '../config/config.js';
import { type Access, isLocalName, isLoopback } from './access.js';
import { type Answer, fileAt, loginPage, plain, type Routes } from './routes.js';
import { MOST_WATCHERS, type Stream } from './stream.js';

/** Milliseconds that a request may take to come, and that nothing may move on a connection. */
const PATIENCE = 10_000;
const IDLE = 30_000;
const MOST_CLIENTS = 256;
const LONGEST_HEADERS = 8 * 1024;
const LONGEST_LOGIN = 4 * 1024;

/** Nothing from elsewhere, nothing inline, in no frame. */
const POLICY = [
  ...["default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'"],
  ...["connect-src 'self'", "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'"],
].join('; ');

const HEADERS: Readonly<Record<string, string>> = {
  'Content-Security-Policy': POLICY,
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Resource-Policy': 'same-origin',
};

/** What can be replaced while connections stay. */
export interface Guard {
  access?: Access;
  tls?: { cert: string; key: string };
}

export interface ListenerOptions {
  listen: Listen;
  guard: Guard;
  routes: Routes;
  stream: Stream;
  /** For tests: milliseconds for a handshake. */
  handshakeTimeout?: number;
}

/** Answers the status page by HTTP, or by HTTPS where there is a certificate. */
export class WebListener {
  readonly #server: Server;
  readonly #options: ListenerOptions;
  /** Also those that are in the middle of a handshake. */
  readonly #sockets = new Set<Socket>();
  #guard: Guard;

  private constructor(options: ListenerOptions) {
    this.#options = options;
    this.#guard = options.guard;
    const { guard, handshakeTimeout = PATIENCE } = options;
    const { tls } = guard;
    const limits = {
      ...{ maxHeaderSize: LONGEST_HEADERS, requestTimeout: PATIENCE, headersTimeout: PATIENCE },
      connectionsCheckingInterval: PATIENCE / 2,
    };
    const handle = (request: IncomingMessage, response: ServerResponse) => {
      // Whoever goes away in the middle is no trouble of ours.
      response.on('error', () => {});
      this.#handle(request, response);
    };
    const server = tls
      ? createSecureServer({ ...limits, ...tls, handshakeTimeout }, handle)
      : createServer(limits, handle);
    server.timeout = IDLE;
    server.maxConnections = MOST_CLIENTS;
    server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket);
      socket.once('close', () => this.#sockets.delete(socket));
    });
    this.#server = server;
  }

  /**
   * @throws ConnectionError if nobody can listen there, or everybody could get there without a token
   * or could read along
   */
  static async open(options: ListenerOptions): Promise<WebListener> {
    const { host, port } = options.listen;
    const listener = new WebListener(options);
    try {
      await new Promise<void>((resolve, reject) => {
        listener.#server.once('error', reject);
        listener.#server.listen(port, host, resolve);
      });
    } catch (cause) {
      const why = reason(cause as Error);
      throw new ConnectionError(`could not listen on "${host}", port ${port}: ${why}`, { cause });
    }
    listener.#server.on('error', () => {});
    const { access, tls } = options.guard;
    // A name of the configuration may lead anywhere.
    if (!isLoopback(listener.#address.address) && !(access && tls)) {
      await listener.close();
      throw new ConnectionError(
        `the status page on "${host}" could be read by everybody: it is no loopback address`,
        { hint: 'Set "token_file" and "tls" in "web", or listen on 127.0.0.1.' },
      );
    }
    return listener;
  }

  /** The port: of `:0` the one that was given. */
  get port(): number {
    return this.#address.port;
  }

  get #address(): AddressInfo {
    return this.#server.address() as AddressInfo;
  }

  /** Another token or certificate; who is connected stays, and has to give the new token. */
  replace(guard: Guard): void {
    this.#guard = guard;
    if (guard.tls) (this.#server as SecureServer).setSecureContext(guard.tls);
  }

  async close(): Promise<void> {
    this.#options.stream.close();
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  #handle(request: IncomingMessage, response: ServerResponse): void {
    const { access } = this.#guard;
    if (access && request.method === 'POST' && request.url === '/login') {
      this.#login(request, (answer) => reply(request, response, answer), access);
      return;
    }
    let answer: Answer | undefined;
    try {
      answer = this.#answer(request, response);
    } catch {
      // Whatever is wrong with a page, receivers are not to end of it.
      if (response.headersSent) response.destroy();
      else answer = plain(500, 'failed\n');
    }
    if (answer) reply(request, response, answer);
  }

  /** Undefined: it is watched from now on, or answered later. */
  #answer(request: IncomingMessage, response: ServerResponse): Answer | undefined {
    const { method = '', url = '', headers } = request;
    const [path, search] = cut(url);
    const { access } = this.#guard;
    if (!access && !isLocalName(headers.host)) {
      return plain(421, 'This page is asked for by its own address only.\n');
    }
    if (method !== 'GET' && method !== 'HEAD') return plain(405, 'only GET\n');
    const file = fileAt(path);
    if (file) return file;
    const now = Date.now();
    const address = addressOf(request.socket);
    const verdict = access?.admits(headers, address, now) ?? 'yes';
    if (verdict === 'wait') return refused(access?.waitSeconds(address, now) ?? 1);
    if (verdict === 'no') {
      return headers.accept?.includes('text/html')
        ? loginPage(path === '/login' ? '/' : url, undefined, now)
        : { ...plain(401, 'needs the token\n'), headers: { 'WWW-Authenticate': 'Bearer' } };
    }
    if (path === '/login') return seeOther('/');
    const query = new URLSearchParams(search);
    if (path === '/events') return this.#watch(request, response, query);
    const { routes } = this.#options;
    const later = routes.later(path, query, now);
    if (!later) return routes.answer(path, now);
    later.then(
      (answer) => reply(request, response, answer),
      () => reply(request, response, plain(500, 'failed\n')),
    );
    return undefined;
  }

  #watch(
    { method, headers, socket }: IncomingMessage,
    response: ServerResponse,
    query: URLSearchParams,
  ): Answer | undefined {
    const { routes, stream } = this.#options;
    const view = routes.view(query.get('page') ?? '');
    if (!view) return plain(404, 'no such page\n');
    if (stream.size >= MOST_WATCHERS) {
      return { ...plain(503, 'too many watch\n'), headers: { 'Retry-After': '10' } };
    }
    response.writeHead(200, {
      ...HEADERS,
      ...{ 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' },
      'X-Accel-Buffering': 'no',
    });
    // What a browser that was cut off had last is newer than the page.
    const seen = headers['last-event-id'] || query.get('version') || '';
    if (method === 'HEAD') response.end();
    else stream.add(response, socket, view, `${seen}`);
    return undefined;
  }

  #login(request: IncomingMessage, send: (answer: Answer) => void, access: Access): void {
    const chunks: Buffer[] = [];
    let length = 0;
    request.on('data', (chunk: Buffer) => {
      length += chunk.length;
      if (length <= LONGEST_LOGIN) chunks.push(chunk);
    });
    request.on('error', () => {});
    request.on('end', () => {
      if (length > LONGEST_LOGIN) return send(plain(413, 'too long\n'));
      const form = new URLSearchParams(Buffer.concat(chunks).toString('utf8'));
      const [token, next] = [form.get('token') ?? '', ownPath(form.get('next'))];
      const [now, address] = [Date.now(), addressOf(request.socket)];
      const verdict = access.judge(token, address, now);
      const wait = access.waitSeconds(address, now);
      if (verdict === 'no') {
        return send(loginPage(next, `That is not the token. Wait ${wait} s, then try again.`, now));
      }
      if (verdict === 'wait') {
        const text = `Too many wrong tokens from there. Wait ${wait} s, then try again.`;
        return send({ ...loginPage(next, text, now), ...retry(wait) });
      }
      const answer = seeOther(next);
      send({ ...answer, headers: { ...answer.headers, 'Set-Cookie': access.session(now) } });
    });
  }
}

const retry = (seconds: number) => ({ status: 429, headers: { 'Retry-After': `${seconds}` } });

const refused = (seconds: number): Answer => ({
  ...plain(429, 'too many wrong tokens came from there\n'),
  ...retry(seconds),
});

const seeOther = (path: string): Answer => ({
  ...plain(303, ''),
  headers: { Location: path },
});

/** A path of this very site, whatever the form said. */
function ownPath(text: string | null): string {
  return text !== null && /^\/(?![/\\])[\x21-\x5b\x5d-\x7e]*$/.test(text) ? text : '/';
}

function cut(url: string): [path: string, search: string] {
  const at = url.indexOf('?');
  return at < 0 ? [url, ''] : [url.slice(0, at), url.slice(at + 1)];
}

const addressOf = ({ remoteAddress = '' }: Socket): string => remoteAddress;

function reply(request: IncomingMessage, response: ServerResponse, answer: Answer): void {
  const { status, type, text, tag, headers } = answer;
  const isSame = tag !== undefined && request.headers['if-none-match'] === tag;
  response.writeHead(isSame ? 304 : status, {
    ...HEADERS,
    'Content-Type': type,
    'Cache-Control': tag === undefined ? 'no-store' : 'no-cache',
    ...(tag === undefined ? {} : { ETag: tag }),
    ...(isSame ? {} : { 'Content-Length': Buffer.byteLength(text) }),
    // What else comes is not read.
    ...(status === 405 || status === 413 ? { Connection: 'close' } : {}),
    ...headers,
  });
  response.end(request.method === 'HEAD' || isSame ? undefined : text);
}
