import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { beforeAll, expect, test } from 'vitest';
import { CertificateAuthority, type KeyPair } from '../../../support/certificates.js';
import { scratchDir } from '../../../support/scratch.js';
import { openProxy } from '../open-proxy.js';
import { Endpoint, roleKeys } from './endpoint.js';
import { failureOf, find } from './search.js';

let ca: CertificateAuthority;
let tls: KeyPair;
const token = join(scratchDir('pod'), 'token');

beforeAll(async () => {
  ca = await CertificateAuthority.create(scratchDir('ca'));
  tls = await ca.issue('server', ['IP:127.0.0.1']);
  writeFileSync(token, 'web-identity-token');
});

const sts = () => Endpoint.listen(() => roleKeys('AssumeRoleWithWebIdentity', 'A'), tls);
const pod = (url: string, more: Record<string, string> = {}) => ({
  env: {
    AWS_WEB_IDENTITY_TOKEN_FILE: token,
    AWS_ROLE_ARN: 'arn:aws:iam::1:role/r',
    AWS_ENDPOINT_URL_STS: url,
    ...more,
  },
});

test('the certificate of the token service must be one that is trusted', async () => {
  await using service = await sts();
  expect(await failureOf(pod(service.url))).toMatchObject({
    code: 'WK_STORE_ACCESS',
    hint: expect.stringContaining('AWS_CA_BUNDLE'),
  });
  expect(service.asked).toEqual([]);
  expect(await find(pod(service.url, { AWS_CA_BUNDLE: ca.cert }))).toMatchObject({
    accessKeyId: 'A',
  });
  expect(await failureOf(pod(service.url, { AWS_CA_BUNDLE: '/nowhere' }))).toMatchObject({
    code: 'WK_STORE_ACCESS',
    path: '/nowhere',
  });
  // A file that is no certificate is told as that, rather than that nobody is trusted.
  expect(await failureOf(pod(service.url, { AWS_CA_BUNDLE: token }))).toMatchObject({
    message: expect.stringContaining('no certificate'),
    path: token,
  });
});

test('it is asked through the proxy, if it is not excepted', async () => {
  await using service = await sts();
  const asked: string[] = [];
  const sockets = new Set<Socket>();
  const proxy = createServer().on('connect', ({ url }, socket: Socket) => {
    asked.push(url as string);
    const [host, port] = (url as string).split(':');
    const there = connect(Number(port), host, () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n');
      socket.pipe(there).pipe(socket);
    });
    for (const one of [socket, there]) one.on('error', () => {}) && sockets.add(one);
  });
  proxy.listen(0, '127.0.0.1');
  await once(proxy, 'listening');
  const url = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
  const env = { AWS_CA_BUNDLE: ca.cert, HTTPS_PROXY: url };
  await find(pod(service.url, env));
  expect(asked).toEqual([new URL(service.url).host]);
  await find(pod(service.url, { ...env, NO_PROXY: '127.0.0.1' }));
  expect(asked.length).toBe(1);
  expect(service.asked.length).toBe(2);
  for (const socket of sockets) socket.destroy();
  proxy.close();
});

test('over plain HTTP it is asked through the proxy of that', async () => {
  await using service = await Endpoint.listen(() => roleKeys('AssumeRoleWithWebIdentity', 'A'));
  const proxy = await openProxy();
  await find(pod(service.url, { HTTP_PROXY: proxy.url, HTTPS_PROXY: 'http://127.0.0.1:1' }));
  expect(proxy.asked).toEqual([new URL(service.url).host]);
  expect(service.asked).toHaveLength(1);
  await find(pod(service.url, { http_proxy: proxy.url, no_proxy: '127.0.0.0/8' }));
  expect(proxy.asked).toHaveLength(1);
  proxy.close();
});
