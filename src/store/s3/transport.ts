import { once } from 'node:events';
import {
  type Agent,
  Agent as HttpAgent,
  request as httpRequest,
  type IncomingMessage,
} from 'node:http';
import { type AgentOptions, Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { WalkeepError } from '../../errors.js';
import type { Target } from './address.js';
import { readCertificates } from './certificates.js';
import { failureOf } from './failures.js';
import type { ProxiedRequest } from './proxy.js';

/** Connections that wait for the next request. */
const IDLE_CONNECTIONS = 32;
/** Before servers and gateways close them, which is often after 60 s. */
const IDLE_MS = 20_000;
/** Only a proxy answers so: its "Proxy Authentication Required". */
const LOGIN_WANTED = 407;

export interface HttpRequest {
  method: string;
  target: Target;
  headers: Readonly<Record<string, string>>;
  body?: AsyncIterable<Uint8Array> | undefined;
}

/** One answer; its body is still to be read or destroyed. */
export interface HttpResponse {
  status: number;
  message: IncomingMessage;
  /** False: it came before the request was sent whole, which is then not to be sent on. */
  sentWhole: boolean;
}

export interface TransportOptions {
  /** File of certificates to trust instead of the system's. */
  ca?: string | undefined;
  env: Readonly<Record<string, string | undefined>>;
}

/** How a host is reached. */
interface Way {
  agent: Agent;
  /** To a proxy that is told the whole address. */
  proxied?: {
    put(target: Target): ProxiedRequest;
    /** It wants a login, or another one. */
    refusal(target: Target): Error;
  };
}

/** HTTP with connections that are kept. Every failure is a typed error, or what a body threw. */
export class Transport {
  readonly #options: TransportOptions;
  readonly #ways = new Map<string, Promise<Way>>();

  constructor(options: TransportOptions) {
    this.#options = options;
  }

  /** One request, sent once. */
  async exchange(request: HttpRequest, signal: AbortSignal): Promise<HttpResponse> {
    signal.throwIfAborted();
    const way = await this.#way(request.target);
    try {
      return await exchange(request, way, signal);
    } catch (error) {
      signal.throwIfAborted();
      throw error;
    }
  }

  close(): void {
    for (const way of this.#ways.values()) way.then(({ agent }) => agent.destroy()).catch(() => {});
    this.#ways.clear();
  }

  #way(target: Target): Promise<Way> {
    const name = `${target.secure} ${target.hostname}:${target.port}`;
    let way = this.#ways.get(name);
    if (!way) {
      const made = this.#newWay(target);
      this.#ways.set(name, made);
      // The file of certificates may be mended meanwhile.
      made.catch(() => {
        if (this.#ways.get(name) === made) this.#ways.delete(name);
      });
      way = made;
    }
    return way;
  }

  async #newWay(target: Target): Promise<Way> {
    const { secure } = target;
    const options: AgentOptions = {
      keepAlive: true,
      maxFreeSockets: IDLE_CONNECTIONS,
      timeout: IDLE_MS,
    };
    const { ca, env } = this.#options;
    const trusted = ca ?? env.AWS_CA_BUNDLE;
    if (secure && trusted) options.ca = readCertificates(trusted);
    const direct = () => ({ agent: secure ? new HttpsAgent(options) : new HttpAgent(options) });
    if (!mayHaveProxy(env)) return direct();
    const { proxyFor, proxyRefusal, putToProxy, TunnelAgent } = await import('./proxy.js');
    const proxy = proxyFor(target, env);
    if (!proxy) return direct();
    if (secure) return { agent: new TunnelAgent(proxy, options) };
    const agent = proxy.protocol === 'https:' ? new HttpsAgent(options) : new HttpAgent(options);
    return {
      agent,
      proxied: {
        put: ({ host, path }) => putToProxy(proxy, host, path),
        refusal: ({ host }) => proxyRefusal(proxy.host, host, LOGIN_WANTED),
      },
    };
  }
}

/** True if any proxy is configured: only then what knows them is loaded. */
export function mayHaveProxy(env: TransportOptions['env']): boolean {
  return Boolean(env.https_proxy || env.HTTPS_PROXY || env.http_proxy || env.HTTP_PROXY);
}

function exchange(request: HttpRequest, way: Way, signal: AbortSignal): Promise<HttpResponse> {
  const { method, target, headers, body } = request;
  const { agent, proxied } = way;
  const put = proxied?.put(target);
  return new Promise((resolve, reject) => {
    const { secure, hostname, port, path } = put ?? target;
    const call = (secure ? httpsRequest : httpRequest)({
      ...{ hostname, port, path, method, agent },
      headers: { ...headers, ...put?.headers },
    });
    // Small requests and the last piece of a body are not to wait for an acknowledgement.
    call.setNoDelay(true);
    const aborted = () => call.destroy(new Error('aborted'));
    signal.addEventListener('abort', aborted, { once: true });
    const done = () => signal.removeEventListener('abort', aborted);
    let fault: { error: unknown } | undefined;
    call.on('error', (error) => {
      done();
      const known = fault?.error ?? error;
      reject(fault || known instanceof WalkeepError ? known : failureOf(error, target.host));
    });
    call.once('response', (message) => {
      done();
      if (proxied && message.statusCode === LOGIN_WANTED) {
        message.destroy();
        reject(proxied.refusal(target));
        return;
      }
      resolve({ status: message.statusCode ?? 0, message, sentWhole: call.writableEnded });
    });
    if (!body) return void call.end();
    send(body, call).catch((error) => {
      // Ended in the middle, so that the server sees that it is not whole.
      fault = { error };
      call.destroy(new Error('the body failed'));
    });
  });
}

type Outgoing = ReturnType<typeof httpRequest>;

/** Writes what comes until there is an answer or the connection is broken. */
async function send(body: AsyncIterable<Uint8Array>, call: Outgoing): Promise<void> {
  const ended = new AbortController();
  const stop = () => ended.abort();
  call.once('response', stop).once('close', stop);
  for await (const piece of body) {
    if (ended.signal.aborted) return;
    if (call.write(piece)) continue;
    await once(call, 'drain', { signal: ended.signal }).catch(() => {});
  }
  if (!ended.signal.aborted) call.end();
}
