import { createServer, type Server, type Socket } from 'node:net';
import { describe, expect, test } from 'vitest';
import { disposer } from '../support/cleanup.js';
import { archiveDirectory, PROGRAMS } from '../support/receiving.js';
import { expectRefusal } from '../support/refusal.js';
import { backend, ScriptedServer } from '../support/scripted-server.js';

const keep = disposer();

/** A server that is no PostgreSQL: `talk` gets each connection. */
class OtherServer {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(talk: (socket: Socket) => void) {
    this.#server = createServer((socket) => {
      this.#sockets.add(socket);
      socket.on('error', () => {});
      talk(socket);
    });
  }

  static async listen(talk: (socket: Socket) => void): Promise<OtherServer> {
    const other = new OtherServer(talk);
    await new Promise<void>((resolve) => other.#server.listen(0, '127.0.0.1', () => resolve()));
    return other;
  }

  conninfo(keywords = ''): string {
    const { port } = this.#server.address() as { port: number };
    return `host=127.0.0.1 port=${port} user=postgres ${keywords}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

const HTTP = 'HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n';
const GARBAGE = Buffer.from(Array.from({ length: 4096 }, (_, i) => (i * 89) % 251));
/** A header that announces 2 GB minus one. */
const HUGE = (type: string) => Buffer.from([type.charCodeAt(0), 0x7f, 0xff, 0xff, 0xff]);

describe.each(PROGRAMS)('%s and a server that', (program) => {
  test.each<[string, string, (socket: Socket) => void, RegExp]>([
    [
      'speaks HTTP, asked for TLS',
      'sslmode=require',
      (s) => s.once('data', () => s.end(HTTP)),
      /received invalid response to SSL negotiation: "H"$/,
    ],
    [
      'speaks HTTP',
      'sslmode=disable',
      (s) => s.once('data', () => s.end(HTTP)),
      /invalid length 1414811695 of message type "H" from server$/,
    ],
    [
      'speaks HTTP at once',
      '',
      (s) => s.end(HTTP),
      /received invalid response to SSL negotiation: "H"$/,
    ],
    [
      'answers TLS with garbage',
      'sslmode=require',
      (s) => s.once('data', () => s.write('S', () => s.once('data', () => s.write(GARBAGE)))),
      /SSL error: wrong version number$/,
    ],
    [
      'says nothing',
      'connect_timeout=2',
      () => {},
      /^connection to server at "127.0.0.1", port \d+ failed: timeout expired$/,
    ],
    [
      'stops in the middle of TLS',
      'sslmode=require connect_timeout=2',
      (s) => s.once('data', () => s.write('S')),
      /failed: timeout expired$/,
    ],
    [
      'closes at once',
      'sslmode=disable',
      (s) => s.end(),
      /server closed the connection unexpectedly$/,
    ],
    [
      'announces a huge message before the login',
      'sslmode=disable',
      (s) => s.once('data', () => s.write(HUGE('R'))),
      /invalid length 2147483647 of message type "R" from server$/,
    ],
    [
      'announces a huge error before the login',
      'sslmode=disable',
      (s) => s.once('data', () => s.write(HUGE('E'))),
      /invalid length 2147483647 of message type "E" from server$/,
    ],
    [
      'sends garbage',
      'sslmode=disable',
      (s) => s.once('data', () => s.write(GARBAGE)),
      /unexpected message type 0x00 from server$/,
    ],
  ])('%s', async (_name, keywords, talk, message) => {
    const server = keep(await OtherServer.listen(talk));
    await expectRefusal(
      {
        directory: archiveDirectory(),
        args: ['-n', '-w', '-d', server.conninfo(keywords)],
        message,
        // Where it is no PostgreSQL, that is said.
        ...(/message type|negotiation/.test(message.source)
          ? { advice: /hint: Is this the port/ }
          : {}),
      },
      { program },
    );
  });

  test('is bound to a database', async () => {
    const server = keep(
      await ScriptedServer.listen(async (c) => {
        await c.accept();
        await c.serve({
          answer: (query) =>
            /^IDENTIFY_SYSTEM/.test(query)
              ? backend.resultSet({ systemid: '7', timeline: '1', xlogpos: '0/1', dbname: 'shop' })
              : undefined,
        });
      }),
    );
    await expectRefusal(
      {
        directory: archiveDirectory(),
        args: ['-n', '-d', server.conninfo()],
        message: /^replication connection is unexpectedly database specific$/,
      },
      { program },
    );
  });

  test('announces an oversize message in the stream', async () => {
    const server = keep(
      await ScriptedServer.listen(async (c) => {
        await c.startStream();
        c.send(HUGE('d'));
      }),
    );
    await expectRefusal(
      {
        directory: archiveDirectory(),
        args: ['-n', '-d', server.conninfo()],
        message: /invalid length 2147483647 of message type "d" from server$/,
      },
      { program },
    );
    expect(server.errors).toEqual([]);
  });

  test('answers START_REPLICATION with a gap', async () => {
    const server = keep(
      await ScriptedServer.listen(async (c) => {
        await c.startStream();
        c.send(backend.xlogData(0x4000000n, Buffer.alloc(100, 1)));
      }),
    );
    await expectRefusal(
      {
        directory: archiveDirectory(),
        args: ['-n', '-d', server.conninfo()],
        message: /^a gap in the stream: got WAL at 0\/4000000, expected 0\/3000000$/,
      },
      { program },
    );
  });
});
