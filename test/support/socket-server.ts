import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { removeScratch, scratchDir } from './scratch.js';

/** What a client says after the startup packet. */
export type OnMessage = (type: string, body: Buffer) => void;

/** Cuts what a client sends into messages; the startup packet comes with type ''. */
export function readMessages(socket: Socket, onMessage: OnMessage): void {
  let input = Buffer.alloc(0);
  let header = 4;
  socket.on('data', (data) => {
    input = Buffer.concat([input, data]);
    while (input.length >= header) {
      const end = input.readInt32BE(header - 4) + header - 4;
      if (input.length < end) return;
      const [type, body] = [input.toString('latin1', 0, header - 4), input.subarray(header, end)];
      input = input.subarray(end);
      header = 5;
      onMessage(type, body);
    }
  });
}

/**
 * A server on a unix socket: thousands of connections one after the other use up no ports.
 * `talk` gets each socket.
 */
export class SocketServer {
  readonly directory = scratchDir('s');
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(talk: (socket: Socket) => void) {
    this.#server = createServer((socket) => {
      this.#sockets.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => this.#sockets.delete(socket));
      talk(socket);
    });
  }

  static async listen(talk: (socket: Socket) => void): Promise<SocketServer> {
    const server = new SocketServer(talk);
    const path = join(server.directory, '.s.PGSQL.5432');
    await new Promise<void>((resolve) => server.#server.listen(path, () => resolve()));
    return server;
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
    removeScratch(this.directory);
  }
}
