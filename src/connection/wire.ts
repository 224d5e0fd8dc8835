import { writeSync } from 'node:fs';
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { ConnectionError, type WalkeepError } from '../errors.js';
import { dial, type Endpoint, type KeepaliveSettings, systemReason } from './socket.js';

/** Unsent bytes above which a status reply is dropped: the next one says more. */
export const MAX_UNSENT = 64 * 1024;

/** Takes `chunk[0, length)`. */
export type OnData = (chunk: Buffer, length: number) => void;

/**
 * An established byte stream to the server, plain or TLS. Plain ones read into one reused buffer
 * (no allocation a read); TLS ones get node's buffers. Reading begins with `start`.
 */
export class Wire {
  readonly endpoint: Endpoint;
  /** The server's certificate in DER; absent without TLS. */
  readonly certificate: Buffer | undefined;
  readonly tls: boolean;
  /** Resolves when the socket is gone. */
  readonly closed: Promise<void>;
  private readonly socket: Socket;
  /** The plain socket's descriptor while it is open; node has no public name for it. */
  private fd: number | undefined;
  private onData: OnData = drop;
  private onClose: (error: WalkeepError) => void = drop;

  private constructor(endpoint: Endpoint, socket: Socket, certificate?: Buffer) {
    this.endpoint = endpoint;
    this.socket = socket;
    this.certificate = certificate;
    this.tls = certificate !== undefined;
    const fd = (socket as unknown as { _handle?: { fd?: number } })._handle?.fd;
    if (!this.tls && fd !== undefined && fd >= 0) this.fd = fd;
    this.closed = new Promise((resolve) => {
      if (socket.closed) resolve();
      else socket.once('close', () => resolve());
    });
    socket.on('error', (error) => this.lost(error));
    socket.on('end', () => this.lost());
    socket.on('close', () => this.lost());
  }

  /** Connects without TLS. `onSocket` gets the socket before it is connected, to abort it. */
  static async plain(
    endpoint: Endpoint,
    keepalive: KeepaliveSettings,
    onSocket: (socket: Socket) => void,
  ): Promise<Wire> {
    let wire: Wire | undefined;
    const { socket, connected } = dial(endpoint, keepalive, (chunk, length) =>
      wire?.onData(chunk, length),
    );
    onSocket(socket);
    await connected;
    wire = new Wire(endpoint, socket);
    return wire;
  }

  /** Takes over a TLS socket after its handshake. */
  static overTls(endpoint: Endpoint, socket: TLSSocket, certificate: Buffer): Wire {
    const wire = new Wire(endpoint, socket, certificate);
    socket.on('data', (chunk: Buffer) => wire.onData(chunk, chunk.length));
    return wire;
  }

  /** Sets who gets the bytes (plain: valid only during the call) and, once, the end of the stream. */
  start(onData: OnData, onClose: (error: WalkeepError) => void): void {
    this.onData = onData;
    this.onClose = onClose;
    if (this.socket.destroyed || this.socket.readableEnded) this.lost();
  }

  /** Bytes written but not yet taken by the operating system. */
  get unsent(): number {
    return this.socket.writableLength;
  }

  write(bytes: Buffer): void {
    if (this.socket.writable) this.socket.write(bytes);
  }

  /**
   * Writes a small frame with one system call when nothing is queued before it: node's stream
   * layers cost more than a status reply itself, and a commit waits for it. What the socket does
   * not take at once goes the ordinary way. The bytes may be reused afterwards.
   */
  writeNow(bytes: Buffer): void {
    const { socket } = this;
    if (!socket.writable) return;
    let sent = 0;
    if (this.fd !== undefined && socket.writableLength === 0) {
      try {
        sent = writeSync(this.fd, bytes);
      } catch {
        // Full (EAGAIN), or broken: then the ordinary way reports it.
      }
    }
    if (sent < bytes.length) socket.write(Buffer.from(bytes.subarray(sent)));
  }

  pause(): void {
    this.socket.pause();
  }

  resume(): void {
    this.socket.resume();
  }

  /** Drops further input and sends our end of the stream after what was written. */
  end(): void {
    this.fd = undefined;
    this.onData = drop;
    this.onClose = drop;
    this.socket.resume();
    this.socket.end();
  }

  destroy(): void {
    // The number may belong to another file as soon as the socket is closed.
    this.fd = undefined;
    this.onData = drop;
    this.onClose = drop;
    this.socket.destroy();
  }

  private lost(error?: NodeJS.ErrnoException): void {
    this.fd = undefined;
    const onClose = this.onClose;
    this.onClose = drop;
    onClose(connectionLost(error));
  }
}

function drop(): void {}

/** What libpq says when a connection ends under it. */
export function connectionLost(cause?: NodeJS.ErrnoException): WalkeepError {
  if (!cause) {
    return new ConnectionError('server closed the connection unexpectedly', {
      hint: 'This probably means the server terminated abnormally before or while processing the request.',
    });
  }
  const doing = cause.syscall === 'write' ? 'send data to server' : 'receive data from server';
  return new ConnectionError(`could not ${doing}: ${systemReason(cause)}`, { cause });
}
