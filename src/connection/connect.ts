import type { Socket } from 'node:net';
import { LONGEST_TIMER } from '../delay.js';
import {
  ConnectionError,
  ProtocolError,
  ServerError,
  TimeoutError,
  TlsError,
  UsageError,
  WalkeepError,
} from '../errors.js';
import { aFunction, aSignal, type Checks, checkOptions, oneOf } from '../options.js';
import type { ServerNotice } from '../protocol/backend-message.js';
import { ReplicationConnection } from './connection.js';
import type { ConnectionSettings, HostTarget } from './conninfo/settings.js';
import { checkSession, type WantedSession } from './session-attributes.js';
import { SETTINGS_CHECKS } from './settings-checks.js';
import { connectFailure, dial, type Endpoint, isUnixTarget, resolveEndpoints } from './socket.js';
import { type ReplicationMode, startup } from './startup.js';
import { requestTls, upgrade } from './tls.js';
import { Wire } from './wire.js';

/** Options of `connect` that are not connection parameters. */
export interface ConnectOptions {
  /** Aborts connecting; the promise rejects with its reason. */
  signal?: AbortSignal;
  /** Default `physical`. */
  replication?: ReplicationMode;
  onNotice?: (notice: ServerNotice) => void;
}

const CHECKS: Checks<ConnectOptions> = {
  signal: aSignal,
  replication: oneOf('physical', 'database', 'off'),
  onNotice: aFunction,
};

/** SQLSTATE of a server that is starting up or shutting down: the next host may be better. */
const CANNOT_CONNECT_NOW = '57P03';

/**
 * Connects to the first target that accepts us and has the wanted session attributes, as libpq
 * does: every address of every target in order, each with its own timeout; a refused login ends
 * the search. Rejects with the last error; its message has one line for each failed attempt.
 */
export async function connect(
  settings: ConnectionSettings,
  options: ConnectOptions = {},
): Promise<ReplicationConnection> {
  checkOptions('connect', settings, SETTINGS_CHECKS);
  checkOptions('connect', options, CHECKS);
  const { signal } = options;
  signal?.throwIfAborted();
  if (settings.targets.length === 0) throw new UsageError('no host to connect to');
  const wanted = settings.targetSessionAttrs;
  const passes: WantedSession[] = wanted === 'prefer-standby' ? ['standby', 'any'] : [wanted];
  const failures: unknown[] = [];
  for (const pass of passes) {
    for (const target of shuffledIf(settings.loadBalanceHosts, settings.targets)) {
      const connection = await tryTarget(target, pass, settings, options, failures);
      if (connection) return connection;
    }
  }
  throw combine(failures);
}

/** The connection, or undefined after noting why the next target is to be tried. */
async function tryTarget(
  target: HostTarget,
  wanted: WantedSession,
  settings: ConnectionSettings,
  options: ConnectOptions,
  failures: unknown[],
): Promise<ReplicationConnection | undefined> {
  const { signal } = options;
  const { connectTimeout } = settings;
  let endpoints: Endpoint[];
  try {
    endpoints = await within(connectTimeout, signal, `could not look up "${target.host}": `, () =>
      resolveEndpoints(target),
    );
  } catch (error) {
    note(error, failures, signal);
    return undefined;
  }
  for (const endpoint of shuffledIf(settings.loadBalanceHosts, endpoints)) {
    try {
      const connection = await connectEndpoint(endpoint, settings, options);
      const problem = await within(
        connectTimeout,
        signal,
        endpoint.failurePrefix,
        () => checkSession(connection, wanted),
        () => connection.destroy(),
      );
      if (problem === undefined) return connection;
      await connection.close();
      failures.push(new ConnectionError(endpoint.failurePrefix + problem));
      // The other addresses are the same server (libpq's try_next_host).
      return undefined;
    } catch (error) {
      note(error, failures, signal);
    }
  }
  return undefined;
}

/** Records a failure that lets the search go on, throws one that ends it. */
function note(error: unknown, failures: unknown[], signal: AbortSignal | undefined): void {
  signal?.throwIfAborted();
  failures.push(error);
  const passing =
    error instanceof ConnectionError ||
    error instanceof TimeoutError ||
    (error instanceof ServerError && error.sqlstate === CANNOT_CONNECT_NOW);
  if (!passing) throw combine(failures);
}

/** The last error, with the lines of all. */
function combine(failures: readonly unknown[]): unknown {
  const last = failures.at(-1);
  if (last instanceof WalkeepError) {
    const lines = failures.map((f) => (f instanceof Error ? f.message : String(f)));
    last.message = [...new Set(lines)].join('\n');
  }
  return last;
}

/** The server answered our SSLRequest with 'N'. */
class TlsRefusedError extends TlsError {
  override readonly name = 'TlsError';
}

type Outcome =
  | { connection: ReplicationConnection }
  /** `otherChannel`: libpq would now try with the other choice of TLS or none. */
  | { error: unknown; otherChannel: boolean };

/** One address, with TLS and without as sslmode says. */
async function connectEndpoint(
  endpoint: Endpoint,
  settings: ConnectionSettings,
  options: ConnectOptions,
): Promise<ReplicationConnection> {
  const failures: unknown[] = [];
  for (const tls of channels(endpoint.target, settings)) {
    const outcome = await attempt(endpoint, tls, settings, options);
    if ('connection' in outcome) return outcome.connection;
    if (outcome.error instanceof WalkeepError) prefix(outcome.error, endpoint.failurePrefix);
    // Under `prefer` a server without TLS is no failure: the attempt without it follows.
    const refused = settings.sslMode === 'prefer' && outcome.error instanceof TlsRefusedError;
    if (!refused) failures.push(outcome.error);
    if (!outcome.otherChannel) break;
  }
  throw combine(failures);
}

/** Whether to use TLS, in the order of the attempts. Unix sockets never do, as in libpq. */
function channels(target: HostTarget, settings: ConnectionSettings): boolean[] {
  if (isUnixTarget(target)) return [false];
  if (settings.sslNegotiation === 'direct') return [true];
  switch (settings.sslMode) {
    case 'disable':
      return [false];
    case 'allow':
      return [false, true];
    case 'prefer':
      return [true, false];
    default:
      return [true];
  }
}

async function attempt(
  endpoint: Endpoint,
  tls: boolean,
  settings: ConnectionSettings,
  options: ConnectOptions,
): Promise<Outcome> {
  let socket: Socket | undefined;
  let otherChannel = false;
  const run = async (): Promise<Outcome> => {
    let wire: Wire;
    if (tls) {
      const opened = dial(endpoint, settings);
      socket = opened.socket;
      socket.on('error', () => {});
      await opened.connected.catch((cause) => {
        throw connectFailure(endpoint, cause);
      });
      otherChannel = true;
      wire = await secure(socket, endpoint, settings);
    } else {
      const wirePromise = Wire.plain(endpoint, settings, (opened) => {
        socket = opened;
      });
      wire = await wirePromise.catch((cause) => {
        throw connectFailure(endpoint, cause);
      });
    }
    const connection = new ReplicationConnection(wire, options.onNotice);
    const failure = await startup(connection, wire, settings, options.replication ?? 'physical');
    if (failure) return { error: failure.error, otherChannel: failure.fromServer };
    return { connection };
  };
  try {
    return await within(settings.connectTimeout, options.signal, endpoint.failurePrefix, run, () =>
      socket?.destroy(),
    );
  } catch (error) {
    socket?.destroy();
    options.signal?.throwIfAborted();
    // As libpq: no second try where time ran out, or where the answer to SSLRequest was nonsense.
    const final = error instanceof TimeoutError || error instanceof ProtocolError;
    return { error, otherChannel: otherChannel && !final };
  }
}

/**
 * TLS on a connected socket. After 'N' under `prefer` the caller reconnects in clear instead of
 * going on here: only a fresh socket can read into a reused buffer.
 */
async function secure(
  socket: Socket,
  endpoint: Endpoint,
  settings: ConnectionSettings,
): Promise<Wire> {
  if (settings.sslNegotiation !== 'direct') {
    const granted = await requestTls(socket).catch((cause) => {
      if (cause instanceof WalkeepError) throw cause;
      throw new ConnectionError((cause as Error).message, { cause });
    });
    if (!granted) throw new TlsRefusedError('server does not support SSL, but SSL was required');
  }
  const { tlsSocket, certificate } = await upgrade(socket, endpoint, settings);
  return Wire.overTls(endpoint, tlsSocket, certificate);
}

/**
 * Runs `work` with a time limit (milliseconds, 0 for none) and an abort signal; on either it calls
 * `cancel` and rejects at once.
 */
async function within<T>(
  timeout: number,
  signal: AbortSignal | undefined,
  failurePrefix: string,
  work: () => Promise<T>,
  cancel: () => void = () => {},
): Promise<T> {
  signal?.throwIfAborted();
  let timer: NodeJS.Timeout | undefined;
  let onAbort: (() => void) | undefined;
  const interrupted = new Promise<never>((_resolve, reject) => {
    if (timeout > 0) {
      timer = setTimeout(
        () => reject(new TimeoutError(`${failurePrefix}timeout expired`)),
        Math.min(timeout, LONGEST_TIMER),
      );
    }
    onAbort = () => reject(signal?.reason);
    signal?.addEventListener('abort', onAbort, { once: true });
  });
  const working = work();
  // Cancelling makes it reject as well; only the first rejection is reported.
  working.catch(() => {});
  try {
    return await Promise.race([working, interrupted]);
  } catch (error) {
    cancel();
    throw error;
  } finally {
    clearTimeout(timer);
    if (onAbort) signal?.removeEventListener('abort', onAbort);
  }
}

function prefix(error: WalkeepError, text: string): void {
  if (!error.message.startsWith(text)) error.message = text + error.message;
}

function shuffledIf<T>(shuffle: boolean, items: readonly T[]): T[] {
  const result = [...items];
  if (!shuffle) return result;
  for (let i = result.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1));
    [result[i], result[j]] = [result[j] as T, result[i] as T];
  }
  return result;
}
