import { request as httpRequest } from 'node:http';
import { type AgentOptions, Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { StoreAccessError, StoreUncertainError } from '../../errors.js';
import { withoutSecrets } from '../../text.js';

type Environment = Readonly<Record<string, string | undefined>>;
type Connected = (error: Error | null, stream: Duplex) => void;

/**
 * The proxy that leads to a host over TLS, as HTTPS_PROXY and NO_PROXY say; undefined: none.
 * @throws StoreAccessError
 */
export function proxyFor(hostname: string, port: number, env: Environment): URL | undefined {
  const proxy = env.https_proxy || env.HTTPS_PROXY;
  if (!proxy || isExcepted(hostname, port, env.no_proxy || env.NO_PROXY || '')) return undefined;
  const text = proxy.includes('://') ? proxy : `http://${proxy}`;
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url && /^https?:$/.test(url.protocol)) return url;
  throw new StoreAccessError(`HTTPS_PROXY is no proxy: "${withoutSecrets(proxy)}"`, {
    hint: 'It must be http://host:port or https://host:port.',
  });
}

/** Hosts, domains with or without a dot before, `host:port`, or `*`. */
function isExcepted(hostname: string, port: number, list: string): boolean {
  const host = hostname.toLowerCase();
  return list
    .toLowerCase()
    .split(/[\s,]+/)
    .filter(Boolean)
    .some((entry) => {
      if (entry === '*') return true;
      const [, name, onPort] = /^(.*?)(?::(\d+))?$/.exec(entry) as unknown as [
        string,
        string,
        string | undefined,
      ];
      // An address of IPv6 has colons of its own.
      if (entry === host) return true;
      if (onPort !== undefined && Number(onPort) !== port) return false;
      const domain = name.replace(/^\*?\./, '');
      return host === domain || host.endsWith(`.${domain}`);
    });
}

/** Connections over TLS through a proxy that knows CONNECT. */
export class TunnelAgent extends HttpsAgent {
  readonly #proxy: URL;

  constructor(proxy: URL, options: AgentOptions) {
    super(options);
    this.#proxy = proxy;
  }

  /** Node takes the socket by the callback where nothing is returned. */
  override createConnection(options: AgentOptions, connected: Connected): undefined {
    const { host, port } = options as { host: string; port: number };
    this.#tunnel(host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`).then(
      (socket) => {
        const inside = { ...options, socket } as AgentOptions;
        connected(null, super.createConnection(inside) as Duplex);
      },
      (error) => connected(error, undefined as unknown as Duplex),
    );
    return undefined;
  }

  #tunnel(to: string): Promise<Socket> {
    const { protocol, hostname, port, username, password, host } = this.#proxy;
    const user = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
    const login = { 'Proxy-Authorization': `Basic ${Buffer.from(user).toString('base64')}` };
    return new Promise((resolve, reject) => {
      const request = (protocol === 'https:' ? httpsRequest : httpRequest)({
        hostname: hostname.replace(/^\[(.*)\]$/, '$1'),
        port: port || (protocol === 'https:' ? 443 : 80),
        method: 'CONNECT',
        path: to,
        headers: { Host: to, ...(username && login) },
        agent: false,
        timeout: CONNECT_TIMEOUT,
      });
      request.once('timeout', () => request.destroy(new Error('the proxy does not answer')));
      request.once('error', reject);
      request.once('connect', (response, socket: Socket) => {
        if (response.statusCode === 200) return resolve(socket);
        socket.destroy();
        reject(proxyRefusal(host, to, response.statusCode ?? 0));
      });
      // Any other answer than one to CONNECT has a body.
      request.once('response', (response) => {
        response.destroy();
        reject(proxyRefusal(host, to, response.statusCode ?? 0));
      });
      request.end();
    });
  }
}

const CONNECT_TIMEOUT = 30_000;

function proxyRefusal(proxy: string, to: string, status: number): Error {
  const text = `the proxy ${proxy} does not lead to ${to}: it answers ${status}`;
  if (status >= 500) return new StoreUncertainError(text);
  return new StoreAccessError(text, {
    hint: 'See HTTPS_PROXY and its login, or except the host by NO_PROXY.',
  });
}
