import { createHash } from 'node:crypto';
import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { parsePlace, type S3Place } from '../../../src/store/place.js';
import { S3Store, type S3StoreOptions } from '../../../src/store/s3/store.js';

/** A request as it came, with its whole body. */
export interface Received {
  method: string;
  path: string;
  query: URLSearchParams;
  headers: IncomingHttpHeaders;
  body: Buffer;
  /** Number of the connection that it came over, from 1. */
  connection: number;
}

export interface Reply {
  status: number;
  headers?: Record<string, string>;
  body?: string | Buffer;
}

/** What is done with a request; `reset` and `hang` are no answer, `cut` is half of one. */
export type Reaction = Reply | 'reset' | 'hang' | { cut: Reply };

export type Script = (request: Received, usual: Service) => Reaction | Promise<Reaction>;

const BUCKET = 'bucket';
export const ENV = { AWS_ACCESS_KEY_ID: 'id', AWS_SECRET_ACCESS_KEY: 'secret' };

/**
 * A service of S3 that does what a script says, for all that a real one does not do on demand. It
 * looks at no signature; what it does as usual is the least of a bucket.
 */
export class Service {
  readonly requests: Received[] = [];
  readonly objects = new Map<string, { body: Buffer; headers: Record<string, string> }>();
  /** What is done with a request before its body is read; undefined: it is read. */
  unread: ((request: IncomingMessage) => Reaction | undefined) | undefined;
  script: Script = (request, usual) => usual.usual(request);
  /** That it creates only what is absent is shown as a rule, and not recorded. */
  fenced = true;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #stores: S3Store[] = [];
  #connections = 0;

  private constructor() {
    this.#server = createServer((request, response) => {
      void this.#serve(request, response);
    });
    this.#server.on('connection', (socket) => {
      Object.assign(socket, { number: ++this.#connections });
      this.#sockets.add(socket);
      socket.once('close', () => this.#sockets.delete(socket));
    });
  }

  static async start(script?: Script): Promise<Service> {
    const service = new Service();
    if (script) service.script = script;
    await new Promise<void>((resolve) => service.#server.listen(0, '127.0.0.1', resolve));
    return service;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Connections that are open. */
  get openConnections(): number {
    return this.#sockets.size;
  }

  get connections(): number {
    return this.#connections;
  }

  place(parameters = ''): S3Place {
    const endpoint = `http://127.0.0.1:${this.port}`;
    return parsePlace(`s3://${BUCKET}?endpoint=${endpoint}${parameters}`) as S3Place;
  }

  /** A store in it, closed with it. */
  open(options: S3StoreOptions = {}, parameters = ''): S3Store {
    const store = new S3Store(this.place(parameters), { env: ENV, ...options });
    this.#stores.push(store);
    return store;
  }

  /** What came, as `METHOD key`. */
  get calls(): string[] {
    return this.requests.map(({ method, path }) => `${method} ${keyOf(path)}`);
  }

  /** Ends the connections that wait for a request. */
  dropIdle(): void {
    this.#server.closeIdleConnections();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const store of this.#stores) await store.close();
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(() => resolve(undefined)));
  }

  /** What S3 does with an object. */
  usual({ method, path, headers, body }: Received): Reply {
    const key = keyOf(path);
    const object = this.objects.get(key);
    if (method === 'PUT') {
      if (object && headers['if-none-match'] === '*') return refusal(412, 'PreconditionFailed');
      const meta = Object.entries(headers).filter(([name]) => name.startsWith('x-amz-meta-'));
      this.objects.set(key, { body, headers: Object.fromEntries(meta) as Record<string, string> });
      return { status: 200, headers: { ETag: `"${md5(body)}"` } };
    }
    if (!object) return refusal(404, 'NoSuchKey');
    return {
      status: 200,
      headers: {
        ...object.headers,
        'Content-Length': String(object.body.length),
        'Last-Modified': new Date().toUTCString(),
        ETag: `"${md5(object.body)}"`,
      },
      body: object.body,
    };
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const isMark = this.fenced && request.url?.includes('/.walkeep-store/');
    const early = isMark ? undefined : this.unread?.(request);
    const pieces: Buffer[] = [];
    if (!early) {
      try {
        for await (const piece of request) pieces.push(piece as Buffer);
      } catch {
        return;
      }
    }
    const url = new URL(request.url ?? '', 'http://service');
    const received: Received = {
      method: request.method ?? '',
      path: decodeURIComponent(url.pathname),
      query: url.searchParams,
      headers: request.headers,
      body: Buffer.concat(pieces),
      connection: (request.socket as Socket & { number: number }).number,
    };
    if (isMark) {
      response.writeHead(412).end();
      return;
    }
    this.requests.push(received);
    const reaction = early ?? (await this.script(received, this));
    if (reaction === 'hang') return;
    if (reaction === 'reset') return void request.socket.resetAndDestroy();
    const { status, headers = {}, body = '' } = 'cut' in reaction ? reaction.cut : reaction;
    const length = { 'Content-Length': String(Buffer.byteLength(body)) };
    response.writeHead(status, { ...length, ...headers });
    if (received.method === 'HEAD' || status === 204) return void response.end();
    if (!('cut' in reaction)) return void response.end(body);
    response.write(Buffer.from(body).subarray(0, Math.floor(body.length / 2)), () =>
      request.socket.destroy(),
    );
  }
}

export function refusal(status: number, code: string, message = '', more = ''): Reply {
  return {
    status,
    headers: { 'Content-Type': 'application/xml' },
    body: `<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>${code}</Code><Message>${message}</Message>${more}</Error>`,
  };
}

export function keyOf(path: string): string {
  return path.replace(new RegExp(`^/${BUCKET}/`), '');
}

/** Each request gets the next one; behind the last all is as usual. */
export function inTurn(...reactions: (Reaction | Script)[]): Script {
  return (request, usual) => {
    const next = reactions.shift();
    if (next === undefined) return usual.usual(request);
    return typeof next === 'function' ? next(request, usual) : next;
  };
}

function md5(bytes: Buffer): string {
  return createHash('md5').update(bytes).digest('hex');
}
