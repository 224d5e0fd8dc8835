import { chmodSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { join } from 'node:path';
import { afterEach } from 'vitest';
import { scratchDir } from '../../support/scratch.js';

/** What no error and no line of a log may have in it. */
export const SECRET = 'kEtZeR99';

export interface Asked {
  method: string;
  url: string;
  headers: IncomingMessage['headers'];
  body: string;
}

/** Who is told; a test says how it answers. */
export class Endpoint {
  readonly asked: Asked[] = [];
  /** Times that it was left before it had answered. */
  hungUp = 0;
  answer: (response: ServerResponse, asked: Asked) => void = (response) => response.end();
  readonly #server: Server;

  private constructor() {
    this.#server = createServer(async (request, response) => {
      let body = '';
      request.setEncoding('utf8').on('error', () => {});
      response.on('error', () => {});
      response.on('close', () => {
        if (!response.writableEnded) this.hungUp += 1;
      });
      for await (const piece of request) body += piece;
      const { method = '', url = '', headers } = request;
      const asked = { method, url, headers, body };
      this.asked.push(asked);
      this.answer(response, asked);
    });
  }

  /** For one test. */
  static async open(): Promise<Endpoint> {
    const endpoint = await Endpoint.start();
    open.push(endpoint);
    return endpoint;
  }

  /** Until it is closed. */
  static async start(): Promise<Endpoint> {
    const endpoint = new Endpoint();
    await new Promise<void>((done) => endpoint.#server.listen(0, '127.0.0.1', done));
    return endpoint;
  }

  get url(): string {
    const { port } = this.#server.address() as { port: number };
    return `http://127.0.0.1:${port}/${SECRET}`;
  }

  /** A file with its address, as a configuration names it. */
  get urlFile(): string {
    return secretFile(this.url);
  }

  get messages(): Record<string, unknown>[] {
    return this.asked.map(({ body }) => JSON.parse(body));
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((done) => this.#server.close(done));
  }
}

const open: Endpoint[] = [];
afterEach(async () => {
  for (const endpoint of open.splice(0)) await endpoint.close();
});

export function secretFile(text: string, mode = 0o600): string {
  const file = join(scratchDir('url'), 'url');
  writeFileSync(file, `${text}\n`);
  chmodSync(file, mode);
  return file;
}
