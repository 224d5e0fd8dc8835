import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { ConnectionError } from '../../errors.js';
import { reason } from '../../files/durable.js';
import type { Listen } from '../config/config.js';
import type { ServerStatus } from '../status.js';
import { type Facts, metricsOf } from './metrics.js';

/** Who asks has this long, and there are not more of them at a time. */
const PATIENCE = 10_000;
const MOST_CLIENTS = 64;

/** States in which a receiver has begun, or is not to. */
const STARTED: readonly ServerStatus['state'][] = [
  ...(['connecting', 'streaming', 'disconnected', 'held', 'paused'] as const),
];

/** Answers `/metrics`, `/livez` and `/readyz`, and nothing else: all from memory, at once. */
export class MetricsListener {
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  /** @throws ConnectionError if nobody can listen there */
  static async open({ host, port }: Listen, facts: Facts): Promise<MetricsListener> {
    const registry = metricsOf(facts);
    const server = createServer((request, response) => {
      answer(request, response, {
        '/metrics': async () => [200, await registry.metrics(), registry.contentType],
        // This very loop answers: it lives. What a server of PostgreSQL is at, is not its business.
        '/livez': async () => [200, 'ok\n'],
        '/readyz': async () => {
          const missing = facts.servers().filter(({ state }) => !STARTED.includes(state));
          const names = missing.map(({ name, state }) => `${name}: ${state}\n`).join('');
          return missing.length === 0 ? [200, 'ok\n'] : [503, names];
        },
      });
    });
    server.requestTimeout = server.headersTimeout = PATIENCE;
    server.maxConnections = MOST_CLIENTS;
    try {
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject);
        server.listen(port, host, resolve);
      });
    } catch (cause) {
      throw new ConnectionError(
        `could not listen on "${host}", port ${port}: ${reason(cause as Error)}`,
        {
          cause,
        },
      );
    }
    server.on('error', () => {});
    return new MetricsListener(server);
  }

  /** The port: of `:0` the one that was given. */
  get port(): number {
    const address = this.#server.address();
    return typeof address === 'object' && address !== null ? address.port : 0;
  }

  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeAllConnections();
    await closed;
  }
}

type Answer = () => Promise<[status: number, text: string, type?: string]>;

function answer(
  { method, url = '' }: IncomingMessage,
  response: ServerResponse,
  answers: Readonly<Record<string, Answer>>,
): void {
  const path = url.split('?')[0] as string;
  const known = Object.hasOwn(answers, path) ? answers[path] : undefined;
  const reply = (status: number, text: string, type = 'text/plain; charset=utf-8'): void => {
    response.writeHead(status, { 'Content-Type': type, 'Cache-Control': 'no-store' });
    response.end(method === 'HEAD' ? undefined : text);
  };
  if (method !== 'GET' && method !== 'HEAD') reply(405, 'only GET\n');
  else if (!known) reply(404, 'not found\n');
  else {
    known().then(
      (answered) => reply(...answered),
      () => reply(500, 'failed\n'),
    );
  }
}
