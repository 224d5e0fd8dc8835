import { request as httpRequest } from 'node:http';
import { type AgentOptions, Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { BlockList, isIP, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { StoreAccessError, StoreUncertainError } from '../../errors.js';
import { withoutSecrets } from '../../text.js';

type Environment = Readonly<Record<string, string | undefined>>;
type Connected = (error: Error | null, stream: Duplex) => void;

/** Where a request is to go. */
export interface Destination {
  secure: boolean;
  /** An address of IPv6 without brackets. */
  hostname: string;
  port: number;
}

/**
 * The proxy that leads to a host, as HTTPS_PROXY or HTTP_PROXY, and NO_PROXY say; undefined: none.
 * @throws StoreAccessError
 */
export function proxyFor(to: Destination, env: Environment): URL | undefined {
  const name = to.secure ? 'HTTPS_PROXY' : 'HTTP_PROXY';
  const proxy = env[name.toLowerCase()] || env[name];
  if (!proxy || isExcepted(to, env.no_proxy || env.NO_PROXY || '')) return undefined;
  const text = proxy.includes('://') ? proxy : `http://${proxy}`;
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url && /^https?:$/.test(url.protocol)) return url;
  throw new StoreAccessError(`${name} is no proxy: "${withoutSecrets(proxy)}"`, {
    hint: 'It must be http://host:port or https://host:port.',
  });
}

/** Hosts, domains with or without a dot before, `host:port`, addresses with `/bits`, or `*`. */
function isExcepted({ hostname, port }: Destination, list: string): boolean {
  const host = hostname.toLowerCase();
  return list
    .toLowerCase()
    .split(/[\s,]+/)
    .filter(Boolean)
    .some((entry) => {
      if (entry === '*') return true;
      if (entry.includes('/')) return isWithin(host, entry);
      const [, name, onPort] = /^(.*?)(?::(\d+))?$/.exec(entry) as unknown as [
        string,
        string,
        string | undefined,
      ];
      // An address of IPv6 has colons of its own.
      if (entry === host) return true;
      if (onPort !== undefined && Number(onPort) !== port) return false;
      const domain = name.replace(/^\*?\./, '').replace(/^\[(.*)\]$/, '$1');
      return host === domain || host.endsWith(`.${domain}`);
    });
}

/** Whether an address is in a network such as 10.0.0.0/8. A name is in none. */
function isWithin(host: string, network: string): boolean {
  const [, address = '', bits = ''] = /^(.*)\/(\d{1,3})$/.exec(network) ?? [];
  const family = isIP(address);
  if (family === 0 || isIP(host) !== family || Number(bits) > (family === 4 ? 32 : 128)) {
    return false;
  }
  const kind = family === 4 ? 'ipv4' : 'ipv6';
  const list = new BlockList();
  list.addSubnet(address, Number(bits), kind);
  return list.check(host, kind);
}

/** A request over plain HTTP, as it is put to a proxy: whole addresses instead of paths. */
export interface ProxiedRequest extends Destination {
  path: string;
  /** Beside those of the request itself. */
  headers: Record<string, string>;
}

export function putToProxy(proxy: URL, host: string, path: string): ProxiedRequest {
  return { ...connectionTo(proxy), path: `http://${host}${path}`, headers: loginFor(proxy) };
}

function connectionTo({ protocol, hostname, port }: URL): Destination {
  const secure = protocol === 'https:';
  return {
    secure,
    hostname: hostname.replace(/^\[(.*)\]$/, '$1'),
    port: Number(port) || (secure ? 443 : 80),
  };
}

function loginFor({ username, password }: URL): Record<string, string> {
  if (!username) return {};
  const user = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
  return { 'Proxy-Authorization': `Basic ${Buffer.from(user).toString('base64')}` };
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
    const { secure, ...proxy } = connectionTo(this.#proxy);
    const { host } = this.#proxy;
    return new Promise((resolve, reject) => {
      const request = (secure ? httpsRequest : httpRequest)({
        ...proxy,
        method: 'CONNECT',
        path: to,
        headers: { Host: to, ...loginFor(this.#proxy) },
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

export function proxyRefusal(proxy: string, to: string, status: number): Error {
  const text = `the proxy ${proxy} does not lead to ${to}: it answers ${status}`;
  if (status >= 500) return new StoreUncertainError(text);
  return new StoreAccessError(text, {
    hint: 'See HTTPS_PROXY or HTTP_PROXY and its login, or except the host by NO_PROXY.',
  });
}
