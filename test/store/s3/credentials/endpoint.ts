import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { KeyPair } from '../../../support/certificates.js';

/** What an endpoint was asked. */
export interface Asked {
  method: string;
  path: string;
  headers: Record<string, string | undefined>;
  body: string;
}

/** What it answers; one of the two words is no answer. */
export type Reply = { status?: number; headers?: Record<string, string>; body: string } | Fault;
/** Says nothing; ends before the last byte of its body; resets the connection. */
type Fault = 'stall' | 'short' | 'reset';

type Replies = (asked: Asked, n: number) => Reply | Promise<Reply>;

/** An HTTP endpoint on a real socket that answers as a test says. */
export class Endpoint implements AsyncDisposable {
  readonly asked: Asked[] = [];
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  readonly #secure: boolean;

  private constructor(reply: Replies, tls?: KeyPair) {
    this.#secure = tls !== undefined;
    const handle = async (request: IncomingMessage, response: ServerResponse) => {
      const parts: Buffer[] = [];
      for await (const part of request) parts.push(part as Buffer);
      const { method = '', url: path = '', headers } = request;
      const asked = { method, path, headers, body: Buffer.concat(parts).toString() } as Asked;
      this.asked.push(asked);
      const answer = await reply(asked, this.asked.length);
      if (answer === 'stall') return;
      if (answer === 'reset') request.socket.resetAndDestroy();
      else if (answer === 'short') {
        response.writeHead(200, { 'content-length': 1000 }).write('{', () => {
          request.socket.destroy();
        });
      } else response.writeHead(answer.status ?? 200, answer.headers).end(answer.body);
    };
    this.#server = tls
      ? createTlsServer({ cert: readFileSync(tls.cert), key: readFileSync(tls.key) }, handle)
      : createServer(handle);
    this.#server.on('connection', (socket) => this.#sockets.add(socket));
  }

  static async listen(reply: Replies, tls?: KeyPair) {
    const endpoint = new Endpoint(reply, tls);
    endpoint.#server.listen(0, '127.0.0.1');
    await once(endpoint.#server, 'listening');
    return endpoint;
  }

  get url(): string {
    return `http${this.#secure ? 's' : ''}://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** The fields of the form that was sent with the n-th question. */
  form(n: number): Record<string, string> {
    return Object.fromEntries(new URLSearchParams(this.asked[n]?.body));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

/** Where nobody listens. */
export async function nobody(): Promise<string> {
  await using endpoint = await Endpoint.listen(() => 'reset');
  return endpoint.url;
}

/** Never in a message: tests look for it. */
export const SECRET = 'the/secret+access=key';

export const json = (value: unknown, status = 200): Reply => ({
  status,
  body: JSON.stringify(value),
});

/** As container endpoints and the metadata service give them. */
export const keys = (id: string, expiration = '2030-01-01T00:00:00Z') => ({
  Code: 'Success',
  AccessKeyId: id,
  SecretAccessKey: SECRET,
  Token: `token of ${id}`,
  Expiration: expiration,
});

/** The same in an answer of STS. */
export const roleKeys = (action: string, id: string, expiration = '2030-01-01T00:00:00Z') => ({
  body: `<?xml version="1.0"?><${action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <${action}Result><AssumedRoleUser><Arn>arn:aws:sts::1:assumed-role/r/s</Arn></AssumedRoleUser>
  <Credentials><AccessKeyId>${id}</AccessKeyId><SecretAccessKey>${SECRET}</SecretAccessKey>
  <SessionToken>token of ${id}</SessionToken><Expiration>${expiration}</Expiration></Credentials>
  </${action}Result></${action}Response>`,
});
