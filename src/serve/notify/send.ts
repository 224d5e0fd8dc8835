import type { ClientRequest, IncomingMessage, RequestOptions } from 'node:http';
import { ConnectionError, UsageError } from '../../errors.js';
import { VERSION } from '../../package.js';

/** Milliseconds for all of it: the name, the connection, TLS, and the head of the answer. */
const PATIENCE = 10_000;

export interface Sending {
  url: string;
  /** Sent as JSON with POST; absent: GET. */
  body?: string;
  signal: AbortSignal;
  /** For tests. */
  patience?: number;
}

/**
 * Asks an address once, without any proxy, and resolves if it answers with 2xx; redirects are not
 * followed. The address is a secret: nothing of it is in an error.
 * @throws ConnectionError, UsageError if it is no address; the signal's reason
 */
export async function send({ url, body, signal, patience = PATIENCE }: Sending): Promise<void> {
  const target = addressOf(url);
  const secure = target.protocol === 'https:';
  const { request } = secure ? await import('node:https') : await import('node:http');
  signal.throwIfAborted();
  const options: RequestOptions = {
    method: body === undefined ? 'GET' : 'POST',
    // One of its own: it keeps nothing open, and knows of no proxy.
    agent: false,
    headers: {
      'User-Agent': `walkeep/${VERSION}`,
      Connection: 'close',
      ...(body === undefined
        ? {}
        : { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) }),
    },
  };
  const asked = begin(() => request(target, options));
  asked.end(body);
  const status = await answered(asked, signal, patience);
  if (status >= 200 && status < 300) return;
  const isRedirect = status >= 300 && status < 400;
  throw new ConnectionError(
    isRedirect ? `it leads elsewhere (HTTP status ${status})` : `it answered ${status}`,
    isRedirect ? { hint: 'Redirects are not followed: give the address that it leads to.' } : {},
  );
}

/** What is thrown at once may have anything in its message. */
function begin(request: () => ClientRequest): ClientRequest {
  try {
    return request();
  } catch {
    throw new UsageError('it is no address that can be asked');
  }
}

/** The status that came in time; what comes behind it is not waited for. */
function answered(asked: ClientRequest, signal: AbortSignal, patience: number): Promise<number> {
  return new Promise<number>((resolve, reject) => {
    const end = (how: () => void): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', onAbort);
      how();
      asked.destroy();
    };
    const onAbort = (): void => end(() => reject(signal.reason));
    const timer = setTimeout(
      () => end(() => reject(new ConnectionError(`no answer within ${patience / 1000} s`))),
      patience,
    );
    signal.addEventListener('abort', onAbort, { once: true });
    asked.on('error', (e: NodeJS.ErrnoException) =>
      end(() => reject(new ConnectionError(whyOf(e)))),
    );
    asked.once('response', (response: IncomingMessage) => {
      response.on('error', () => {});
      end(() => resolve(response.statusCode ?? 0));
    });
  });
}

function addressOf(url: string): URL {
  let target: URL | undefined;
  try {
    target = new URL(url);
  } catch {
    // What it is must not be said.
  }
  if (target?.protocol === 'http:' || target?.protocol === 'https:') return target;
  throw new UsageError('it is no http or https address');
}

const WHY: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'the connection was refused',
  ECONNRESET: 'the connection was broken',
  EPIPE: 'the connection was broken',
  EAI_AGAIN: 'its name could not be looked up',
  ENOTFOUND: 'its name is not known',
  EHOSTUNREACH: 'it cannot be reached',
  ENETUNREACH: 'it cannot be reached',
  ETIMEDOUT: 'it cannot be reached',
};

/** By the code alone: messages have the host's name in them. */
function whyOf({ code, syscall }: NodeJS.ErrnoException): string {
  if (code === undefined || !/^[A-Z][A-Z0-9_]*$/.test(code)) return 'it could not be asked';
  const why = WHY[code];
  if (why !== undefined) return why;
  if (code.startsWith('HPE_')) return `its answer is no HTTP (${code})`;
  return syscall === undefined ? `TLS failed (${code})` : `it could not be asked (${code})`;
}
