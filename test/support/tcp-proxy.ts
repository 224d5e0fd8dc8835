import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { formatConninfo } from './server-config.js';
import { delay } from './wait.js';

interface Link {
  client: Socket;
  server: Socket;
  /** Data and ends that a slow line still holds, by where they go. */
  late: Map<Socket, Promise<void>>;
}

/** A TCP proxy on 127.0.0.1 that spoils the connection to a server on purpose. */
export class TcpProxy {
  readonly #listener: Server;
  readonly #links = new Set<Link>();
  #targetPort: number;
  #stalled = false;
  #delayMs = 0;
  /** Bytes towards the client that may still pass; what happens then. */
  #budget = Number.POSITIVE_INFINITY;
  #atEnd: 'cut' | 'stall' = 'cut';
  /** A read towards the client of at least so many bytes gets one bit flipped, once. */
  #flipIn = Number.POSITIVE_INFINITY;
  /** Such reads that pass unharmed before. */
  #flipAfter = 0;
  #flipMask = 0x10;
  /** Connections accepted so far. */
  accepted = 0;
  /** Bytes that went to clients so far. */
  forwarded = 0;

  private constructor(targetPort: number) {
    this.#targetPort = targetPort;
    // A half-open side is only passed on: a stalled proxy must not answer a FIN.
    this.#listener = createServer({ allowHalfOpen: true }, (client) => {
      this.accepted += 1;
      const server = createConnection({
        port: this.#targetPort,
        host: '127.0.0.1',
        allowHalfOpen: true,
      });
      this.#join({ client, server, late: new Map() });
    });
  }

  static async listen(targetPort: number): Promise<TcpProxy> {
    const proxy = new TcpProxy(targetPort);
    await new Promise<void>((resolve) => proxy.#listener.listen(0, '127.0.0.1', () => resolve()));
    return proxy;
  }

  #join(link: Link): void {
    const { client, server } = link;
    this.#links.add(link);
    server.on('data', (data) => this.#toClient(link, data));
    client.on('data', (data) => this.#pass(link, server, data));
    for (const [from, to] of [
      [client, server],
      [server, client],
    ] as const) {
      from.setNoDelay(true);
      from.on('error', () => {});
      from.on('end', () => this.#pass(link, to));
      from.on('close', () => {
        // The other side of a stalled line hears of it later, and is closed with the proxy.
        if (to.destroyed) this.#links.delete(link);
        else if (!this.#stalled) to.destroy();
      });
    }
    if (this.#stalled) this.#freeze(link);
  }

  #toClient(link: Link, data: Buffer): void {
    if (data.length >= this.#flipIn && this.#flipAfter-- <= 0) {
      this.#flipIn = Number.POSITIVE_INFINITY;
      const middle = data.length >> 1;
      data[middle] = data[middle]! ^ this.#flipMask;
    }
    const part = data.subarray(0, Math.min(data.length, this.#budget));
    this.#budget -= part.length;
    this.forwarded += part.length;
    if (this.#budget > 0) {
      this.#pass(link, link.client, part);
      return;
    }
    this.#budget = Number.POSITIVE_INFINITY;
    if (this.#atEnd === 'cut') {
      this.#pass(link, link.client, part, () => this.cut());
      return;
    }
    this.#pass(link, link.client, part);
    link.server.unshift(data.subarray(part.length));
    this.stall();
  }

  /** Hands data on, or the end where there is none; in order and late on a slow line. */
  #pass(link: Link, to: Socket, data?: Buffer, then?: () => void): void {
    const now = () => {
      if (!to.writable) then?.();
      else if (data) to.write(data, then);
      else to.end();
    };
    const before = link.late.get(to);
    if (this.#delayMs === 0 && !before) {
      now();
      return;
    }
    const turn = Promise.all([before, delay(this.#delayMs)]).then(() => {
      now();
      if (link.late.get(to) === turn) link.late.delete(to);
    });
    link.late.set(to, turn);
  }

  get port(): number {
    return (this.#listener.address() as { port: number }).port;
  }

  conninfo(keywords: Record<string, string | number> = {}): string {
    return formatConninfo({ host: '127.0.0.1', port: this.port, user: 'postgres', ...keywords });
  }

  /** After so many more bytes towards the client: resets the connection, or goes silent. */
  after(bytes: number, what: 'cut' | 'stall'): void {
    this.#budget = bytes;
    this.#atEnd = what;
  }

  /**
   * Flips one bit in the middle of the next read of at least so many bytes towards the client.
   * @param after so many reads later
   */
  flipBit(minimum: number, after = 0, mask = 0x10): void {
    this.#flipIn = minimum;
    this.#flipAfter = after;
    this.#flipMask = mask;
  }

  /** True once the bit was flipped. */
  get flipped(): boolean {
    return this.#flipIn === Number.POSITIVE_INFINITY;
  }

  /** Connects new clients to another server from now on. */
  retarget(port: number): void {
    this.#targetPort = port;
  }

  /** From now on everything arrives so much later, in both directions. */
  slow(ms: number): void {
    this.#delayMs = ms;
  }

  /** Ends one direction of all connections as a peer's shutdown(2) would; the other goes on. */
  halfClose(towards: 'client' | 'server'): void {
    for (const link of this.#links) this.#pass(link, link[towards]);
  }

  get stalled(): boolean {
    return this.#stalled;
  }

  /** Forwards nothing any more, no FIN either, as after a cable was pulled. New clients too. */
  stall(): void {
    this.#stalled = true;
    for (const link of this.#links) this.#freeze(link);
  }

  #freeze({ client, server }: Link): void {
    client.pause();
    server.pause();
  }

  resume(): void {
    this.#stalled = false;
    for (const { client, server } of this.#links) {
      if (client.destroyed) server.destroy();
      if (server.destroyed) client.destroy();
      client.resume();
      server.resume();
    }
  }

  /** Resets all connections. */
  cut(): void {
    for (const { client, server } of this.#links) {
      client.resetAndDestroy();
      server.resetAndDestroy();
    }
    this.#links.clear();
  }

  async close(): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.#listener.close(resolve));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
