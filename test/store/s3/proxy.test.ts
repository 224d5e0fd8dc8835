import { createServer, type Server } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { StoreAccessError, StoreUncertainError } from '../../../src/errors.js';
import { parsePlace, type S3Place } from '../../../src/store/place.js';
import { proxyFor } from '../../../src/store/s3/proxy.js';
import { S3Store } from '../../../src/store/s3/store.js';
import { ENV } from './scripted-service.js';

describe('which proxy leads to a host', () => {
  const proxy = (host: string, noProxy?: string, port = 443) =>
    proxyFor(host, port, { HTTPS_PROXY: 'http://proxy:3128', NO_PROXY: noProxy })?.host;

  it('is said by HTTPS_PROXY, also without a scheme, and in small letters before', () => {
    expect(proxyFor('h', 443, {})).toBeUndefined();
    expect(proxyFor('h', 443, { HTTPS_PROXY: 'proxy:3128' })?.href).toBe('http://proxy:3128/');
    expect(proxyFor('h', 443, { HTTPS_PROXY: 'http://a', https_proxy: 'http://b' })?.host).toBe(
      'b',
    );
  });

  it.each([
    ['s3.example.org', 's3.example.org', false],
    ['s3.example.org', 'example.org', false],
    ['s3.example.org', '.example.org', false],
    ['s3.example.org', '*.example.org', false],
    ['s3.example.org', 'other, EXAMPLE.org', false],
    ['s3.example.org', '*', false],
    ['s3.example.org', 'example.org:443', false],
    ['s3.example.org', 'example.org:8443', true],
    ['s3.example.org', 'ple.org', true],
    ['s3.example.org', '', true],
    ['127.0.0.1', '127.0.0.1', false],
    ['::1', '::1', false],
  ])('and not for %s where NO_PROXY is "%s"', (host, list, used) => {
    expect(proxy(host, list)).toBe(used ? 'proxy:3128' : undefined);
  });

  it('cannot be what is no proxy, and a password is not shown', () => {
    expect(() => proxyFor('h', 443, { HTTPS_PROXY: 'socks5://u:hidden@proxy' })).toThrow(
      StoreAccessError,
    );
    expect(() => proxyFor('h', 443, { HTTPS_PROXY: 'socks5://u:hidden@proxy' })).not.toThrow(
      /hidden/,
    );
  });
});

describe('a proxy', () => {
  const servers: Server[] = [];
  afterEach(() => {
    for (const server of servers.splice(0)) server.close();
  });

  const start = async (status: number) => {
    const server = createServer();
    servers.push(server);
    const asked: (string | undefined)[] = [];
    server.on('connect', (request, socket: Socket) => {
      asked.push(request.url, request.headers['proxy-authorization']);
      socket.end(`HTTP/1.1 ${status} No\r\nContent-Length: 0\r\n\r\n`);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return { port: (server.address() as AddressInfo).port, asked };
  };

  it.each([
    [407, StoreAccessError],
    [403, StoreAccessError],
    [502, StoreUncertainError],
  ])('that answers %i is told of', async (status, kind) => {
    const { port, asked } = await start(status);
    const env = { ...ENV, HTTPS_PROXY: `http://user:p%40ss@127.0.0.1:${port}` };
    const place = parsePlace('s3://bucket?endpoint=https://store.invalid:8443') as S3Place;
    await using store = new S3Store(place, { env, patience: { whole: 500 } });
    const error = await store.get('key').catch((e) => e);
    expect(error).toBeInstanceOf(kind);
    expect(error.message).toContain(`${status}`);
    expect(error.message).not.toContain('p@ss');
    const login = `Basic ${Buffer.from('user:p@ss').toString('base64')}`;
    expect(asked.slice(0, 2)).toEqual(['store.invalid:8443', login]);
  });
});
