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
    proxyFor(
      { secure: true, hostname: host, port },
      { HTTPS_PROXY: 'http://proxy:3128', NO_PROXY: noProxy },
    )?.host;
  const h = { secure: true, hostname: 'h', port: 443 };

  it('is said by HTTPS_PROXY, also without a scheme, and in small letters before', () => {
    expect(proxyFor(h, {})).toBeUndefined();
    expect(proxyFor(h, { HTTPS_PROXY: 'proxy:3128' })?.href).toBe('http://proxy:3128/');
    expect(proxyFor(h, { HTTPS_PROXY: 'http://a', https_proxy: 'http://b' })?.host).toBe('b');
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
    ['::1', '[::1]:443', false],
    ['10.1.2.3', '10.0.0.0/8', false],
    ['10.1.2.3', 'x, 10.1.2.0/24', false],
    ['11.1.2.3', '10.0.0.0/8', true],
    ['10.1.2.3', '10.0.0.0/99', true],
    ['fd00::5', 'fd00::/8', false],
    ['fd00::5', '10.0.0.0/8', true],
    ['s3.example.org', '10.0.0.0/8', true],
  ])('and not for %s where NO_PROXY is "%s"', (host, list, used) => {
    expect(proxy(host, list)).toBe(used ? 'proxy:3128' : undefined);
  });

  it('over plain HTTP is said by HTTP_PROXY, and never by the other one', () => {
    const plain = { secure: false, hostname: 'h', port: 80 };
    const env = { HTTPS_PROXY: 'http://tls', HTTP_PROXY: 'http://plain' };
    expect(proxyFor(plain, env)?.host).toBe('plain');
    expect(proxyFor(h, env)?.host).toBe('tls');
    expect(proxyFor(plain, { ...env, http_proxy: 'http://small' })?.host).toBe('small');
    expect(proxyFor(plain, { HTTPS_PROXY: 'http://tls' })).toBeUndefined();
    expect(proxyFor(h, { HTTP_PROXY: 'http://plain' })).toBeUndefined();
    expect(proxyFor(plain, { ...env, NO_PROXY: 'h' })).toBeUndefined();
  });

  it('cannot be what is no proxy, and a password is not shown', () => {
    expect(() => proxyFor(h, { HTTPS_PROXY: 'socks5://u:hidden@proxy' })).toThrow(StoreAccessError);
    expect(() => proxyFor(h, { HTTPS_PROXY: 'socks5://u:hidden@proxy' })).not.toThrow(/hidden/);
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

  it('over plain HTTP is told the whole address, with its login', async () => {
    const asked: (string | undefined)[][] = [];
    const server = createServer((request, response) => {
      asked.push([request.method, request.url, request.headers.host]);
      const { 'proxy-authorization': login } = request.headers;
      if (login !== `Basic ${Buffer.from('user:p@ss').toString('base64')}`) {
        response.writeHead(407).end();
      } else {
        const body = '<Error><Code>NoSuchKey</Code></Error>';
        response.writeHead(404, { 'content-type': 'application/xml' }).end(body);
      }
    });
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    const place = parsePlace('s3://bucket/p?endpoint=http://store.invalid:8080') as S3Place;
    const open = (login: string) =>
      new S3Store(place, { env: { ...ENV, HTTP_PROXY: `http://${login}127.0.0.1:${port}` } });
    await using store = open('user:p%40ss@');
    expect(await store.get('key')).toBeUndefined();
    expect(asked).toEqual([
      ['GET', 'http://store.invalid:8080/bucket/p/key', 'store.invalid:8080'],
    ]);
    await using other = open('user:hidden@');
    const error = await other.get('key').catch((e) => e);
    expect(error).toBeInstanceOf(StoreAccessError);
    expect(error.message).toMatch(/proxy .* 407/);
    expect(error.message).not.toContain('hidden');
  });
});
