import { lookup } from 'node:dns/promises';
import { isIP, connect as netConnect, type Socket } from 'node:net';
import { ConnectionError, type WalkeepError } from '../errors.js';
import { SpareBuffers } from '../files/spare-buffers.js';
import type { HostTarget } from './conninfo/settings.js';

/** Bytes of the one reused read buffer; larger ones gained nothing (measured on loopback). */
const READ_BUFFER_LENGTH = 256 * 1024;
/** Connections come one behind the other, mostly. */
const READ_BUFFERS = new SpareBuffers(READ_BUFFER_LENGTH, 1);

/** One address of a target, and how libpq names it in messages. */
export interface Endpoint {
  target: HostTarget;
  /** Path of the unix socket; absent for TCP. */
  path?: string;
  /** Numeric address; absent for a unix socket. */
  address?: string;
  /** `connection to server at "h" (1.2.3.4), port 5432 failed: ` */
  failurePrefix: string;
  /** `server at "h" (1.2.3.4), port 5432` */
  description: string;
}

/** TCP keepalive as the settings ask for it. */
export interface KeepaliveSettings {
  keepalives: boolean;
  /** Seconds; 0 leaves the system's default. */
  keepalivesIdle: number;
}

/** True if the target is the directory of a unix socket (`/…`) or an abstract one (`@…`). */
export function isUnixTarget(target: HostTarget): boolean {
  return target.hostaddr === undefined && /^[/@]/.test(target.host);
}

/**
 * The addresses to try for a target, in order. @throws ConnectionError if its name is unknown.
 */
export async function resolveEndpoints(target: HostTarget): Promise<Endpoint[]> {
  if (isUnixTarget(target)) {
    const path = `${target.host}/.s.PGSQL.${target.port}`;
    return [
      {
        target,
        // An abstract name begins with a zero byte for the kernel.
        path: path.startsWith('@') ? `\0${path.slice(1)}` : path,
        failurePrefix: `connection to server on socket "${path}" failed: `,
        description: `server on socket "${path}"`,
      },
    ];
  }
  const addresses = target.hostaddr ? [target.hostaddr] : await lookUp(target.host);
  return addresses.map((address) => {
    const shown = address === target.host ? '' : ` (${address})`;
    const description = `server at "${target.host}"${shown}, port ${target.port}`;
    return { target, address, description, failurePrefix: `connection to ${description} failed: ` };
  });
}

async function lookUp(host: string): Promise<string[]> {
  if (isIP(host)) return [host];
  try {
    const found = await lookup(host, { all: true, verbatim: true });
    return found.map((entry) => entry.address);
  } catch (cause) {
    const reason = systemReason(cause);
    throw new ConnectionError(`could not translate host name "${host}" to address: ${reason}`, {
      cause,
    });
  }
}

/**
 * A connected byte stream. With `onRead` reads go into one reused buffer, whose first `length`
 * bytes are valid only during the call; without it the socket is in ordinary mode, as TLS needs it.
 * Rejects with the plain system error; `signal` ends the attempt.
 */
export function dial(
  endpoint: Endpoint,
  keepalive: KeepaliveSettings,
  onRead?: (buffer: Buffer, length: number) => void,
): { socket: Socket; connected: Promise<void> } {
  const reader = onRead && readInto(onRead);
  const socket = netConnect({
    ...(endpoint.path === undefined
      ? { host: endpoint.address as string, port: endpoint.target.port }
      : { path: endpoint.path }),
    ...(reader ? { onread: reader } : {}),
  });
  if (reader) {
    socket.once('close', () => {
      READ_BUFFERS.giveBack(reader.buffer);
    });
  }
  if (endpoint.path === undefined) {
    socket.setNoDelay(true);
    socket.setKeepAlive(keepalive.keepalives, keepalive.keepalivesIdle * 1000);
  }
  const connected = new Promise<void>((resolve, reject) => {
    socket.once('connect', resolve);
    socket.once('error', reject);
    socket.once('close', () => reject(new Error('socket closed')));
  });
  return { socket, connected };
}

function readInto(onRead: (buffer: Buffer, length: number) => void) {
  const buffer = READ_BUFFERS.take();
  return {
    buffer,
    // pause() within the callback stops reading by itself; true does not resume it.
    callback: (length: number): boolean => {
      onRead(buffer, length);
      return true;
    },
  };
}

const REASONS: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'Connection refused',
  ECONNRESET: 'Connection reset by peer',
  ENOENT: 'No such file or directory',
  EACCES: 'Permission denied',
  EPIPE: 'Broken pipe',
  ETIMEDOUT: 'Connection timed out',
  EHOSTUNREACH: 'No route to host',
  ENETUNREACH: 'Network is unreachable',
  EADDRNOTAVAIL: 'Cannot assign requested address',
  EAGAIN: 'Resource temporarily unavailable',
  ENOTFOUND: 'Name or service not known',
  EAI_AGAIN: 'Temporary failure in name resolution',
};

/** The text of a system error as the C library words it. */
export function systemReason(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  return REASONS[code ?? ''] ?? message ?? String(error);
}

/** The error for a failed connect(2), with libpq's hint for the common reasons. */
export function connectFailure(endpoint: Endpoint, cause: unknown): WalkeepError {
  const { code } = cause as NodeJS.ErrnoException;
  const details: { cause: unknown; hint?: string } = { cause };
  if (endpoint.path !== undefined && (code === 'ENOENT' || code === 'ECONNREFUSED')) {
    details.hint = 'Is the server running locally and accepting connections on that socket?';
  } else if (code === 'ECONNREFUSED' || code === 'ETIMEDOUT' || code === 'EHOSTUNREACH') {
    details.hint = 'Is the server running on that host and accepting TCP/IP connections?';
  }
  return new ConnectionError(endpoint.failurePrefix + systemReason(cause), details);
}
