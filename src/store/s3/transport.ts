import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import {
  type Agent,
  Agent as HttpAgent,
  request as httpRequest,
  type IncomingMessage,
} from 'node:http';
import { type AgentOptions, Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { StoreAccessError, WalkeepError } from '../../errors.js';
import type { Target } from './address.js';
import { failureOf } from './failures.js';

/** Connections that wait for the next request. */
const IDLE_CONNECTIONS = 32;
/** Before servers and gateways close them, which is often after 60 s. */
const IDLE_MS = 20_000;

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

/** HTTP with connections that are kept. Every failure is a typed error, or what a body threw. */
export class Transport {
  readonly #options: TransportOptions;
  readonly #agents = new Map<string, Promise<Agent>>();

  constructor(options: TransportOptions) {
    this.#options = options;
  }

  /** One request, sent once. */
  async exchange(request: HttpRequest, signal: AbortSignal): Promise<HttpResponse> {
    signal.throwIfAborted();
    const agent = await this.#agent(request.target);
    try {
      return await exchange(request, agent, signal);
    } catch (error) {
      signal.throwIfAborted();
      throw error;
    }
  }

  close(): void {
    for (const agent of this.#agents.values()) agent.then((it) => it.destroy()).catch(() => {});
    this.#agents.clear();
  }

  #agent({ secure, hostname, port }: Target): Promise<Agent> {
    const name = secure ? `${hostname}:${port}` : 'plain';
    let agent = this.#agents.get(name);
    if (!agent) {
      const made = this.#newAgent(secure, hostname, port);
      this.#agents.set(name, made);
      // The file of certificates may be mended meanwhile.
      made.catch(() => {
        if (this.#agents.get(name) === made) this.#agents.delete(name);
      });
      agent = made;
    }
    return agent;
  }

  async #newAgent(secure: boolean, hostname: string, port: number): Promise<Agent> {
    const options: AgentOptions = {
      keepAlive: true,
      maxFreeSockets: IDLE_CONNECTIONS,
      timeout: IDLE_MS,
    };
    if (!secure) return new HttpAgent(options);
    const { ca, env } = this.#options;
    const trusted = ca ?? env.AWS_CA_BUNDLE;
    if (trusted) options.ca = readCertificates(trusted);
    if (!env.https_proxy && !env.HTTPS_PROXY) return new HttpsAgent(options);
    const { proxyFor, TunnelAgent } = await import('./proxy.js');
    const proxy = proxyFor(hostname, port, env);
    return proxy ? new TunnelAgent(proxy, options) : new HttpsAgent(options);
  }
}

function readCertificates(path: string): string {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    throw new StoreAccessError(`cannot read the certificates of the authority "${path}"`, {
      path,
      cause,
    });
  }
  // Node takes any text and then trusts nobody, which reads as if the server were at fault.
  if (text.includes('-----BEGIN CERTIFICATE-----')) return text;
  throw new StoreAccessError(`"${path}" has no certificate in PEM in it`, { path });
}

function exchange(request: HttpRequest, agent: Agent, signal: AbortSignal): Promise<HttpResponse> {
  const { method, target, headers, body } = request;
  return new Promise((resolve, reject) => {
    const call = (target.secure ? httpsRequest : httpRequest)({
      hostname: target.hostname,
      port: target.port,
      path: target.path,
      method,
      headers,
      agent,
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
