import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { scratchDir } from '../../../support/scratch.js';
import { Endpoint, json, keys, nobody, type Reply } from './endpoint.js';
import { failureOf, find, searchOf } from './search.js';

const full = (url: string, more: Record<string, string> = {}) => ({
  env: { AWS_CONTAINER_CREDENTIALS_FULL_URI: url, ...more },
});

const found = {
  accessKeyId: 'A',
  secretAccessKey: expect.any(String),
  sessionToken: 'token of A',
  expiration: new Date('2030-01-01T00:00:00Z'),
};

test('an ECS task gets them under a relative path', async () => {
  await using ecs = await Endpoint.listen(() => json(keys('A')));
  const env = { AWS_CONTAINER_CREDENTIALS_RELATIVE_URI: '/v2/credentials/x?y=1' };
  expect(await find({ env, options: { containerOrigin: ecs.url } })).toEqual(found);
  expect(ecs.asked[0]).toMatchObject({ method: 'GET', path: '/v2/credentials/x?y=1' });
  expect(ecs.asked[0]?.headers.authorization).toBeUndefined();
});

test('it is never asked through a proxy', async () => {
  await using ecs = await Endpoint.listen(() => json(keys('A')));
  const proxies = { HTTP_PROXY: await nobody(), http_proxy: await nobody() };
  expect(await find(full(ecs.url, proxies))).toEqual(found);
});

test('the relative path counts before a full one', async () => {
  await using ecs = await Endpoint.listen(() => json(keys('A')));
  const env = {
    AWS_CONTAINER_CREDENTIALS_RELATIVE_URI: '/x',
    AWS_CONTAINER_CREDENTIALS_FULL_URI: await nobody(),
  };
  expect(await find({ env, options: { containerOrigin: ecs.url } })).toEqual(found);
});

test('a relative path cannot lead to another host', async () => {
  await using other = await Endpoint.listen(() => json(keys('A')));
  const env = { AWS_CONTAINER_CREDENTIALS_RELATIVE_URI: `@${new URL(other.url).host}/x` };
  const options = { containerOrigin: 'http://169.254.170.2' };
  expect(await failureOf({ env, options })).toMatchObject({ code: 'WK_STORE_ACCESS' });
  expect(other.asked).toEqual([]);
});

describe('the token', () => {
  test('of a pod is read anew for each question: Kubernetes exchanges the file', async () => {
    await using eks = await Endpoint.listen(() => json(keys('A')));
    const file = join(scratchDir('pod'), 'token');
    writeFileSync(file, 'first\n');
    const more = { AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: file };
    const { source } = searchOf(full(`${eks.url}/v1/credentials`, more));
    await source.get();
    writeFileSync(file, 'second\n');
    source.invalidate();
    await source.get();
    expect(eks.asked.map(({ headers }) => headers.authorization)).toEqual(['first', 'second']);
  });

  test('may stand in the environment', async () => {
    await using ecs = await Endpoint.listen(() => json(keys('A')));
    await find(full(ecs.url, { AWS_CONTAINER_AUTHORIZATION_TOKEN: 'Bearer x' }));
    expect(ecs.asked[0]?.headers.authorization).toBe('Bearer x');
  });

  test('cannot bring further headers', async () => {
    await using ecs = await Endpoint.listen(() => json(keys('A')));
    const failed = await failureOf(
      full(ecs.url, { AWS_CONTAINER_AUTHORIZATION_TOKEN: 'x\r\nHost: y' }),
    );
    expect(failed).toMatchObject({ code: 'WK_STORE_ACCESS' });
    expect(ecs.asked).toEqual([]);
  });

  test('that cannot be read is told by its file', async () => {
    const failed = await failureOf(
      full('http://127.0.0.1/', { AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: '/nowhere' }),
    );
    expect(failed).toMatchObject({ code: 'WK_STORE_ACCESS', path: '/nowhere' });
  });
});

test.each([
  'http://169.254.169.254/x',
  'http://example.com/x',
  'http://127.0.0.1.example.com/x',
  'http://[fd00:ec2::24]/x',
  'file:///etc/passwd',
])('%s may not be asked', async (url) => {
  expect(await failureOf(full(url))).toMatchObject({
    code: 'WK_STORE_ACCESS',
    message: expect.stringContaining('not allowed'),
    hint: expect.stringContaining('169.254.170.23'),
  });
});

test.each(['nonsense', '/relative'])('"%s" is no URL', async (url) => {
  expect(await failureOf(full(url))).toMatchObject({ code: 'WK_STORE_ACCESS' });
});

describe('an endpoint that does not answer as it should', () => {
  const cases: [string, Reply, string][] = [
    ['refuses', json({ code: 'AccessDenied' }, 403), 'WK_STORE_ACCESS'],
    ['knows no role', json({}, 404), 'WK_STORE_ACCESS'],
    ['leads elsewhere', { status: 302, headers: { location: '/' }, body: '' }, 'WK_STORE_ACCESS'],
    ['is in trouble', json({}, 500), 'WK_STORE_UNCERTAIN'],
    ['is asked too often', json({}, 429), 'WK_STORE_UNCERTAIN'],
    ['says no JSON', { body: `<html>${keys('A').SecretAccessKey}` }, 'WK_STORE_UNCERTAIN'],
    ['says null', { body: 'null' }, 'WK_STORE_UNCERTAIN'],
    ['gives half', json({ ...keys('A'), AccessKeyId: undefined }), 'WK_STORE_UNCERTAIN'],
    ['gives no date', json(keys('A', 'tomorrow')), 'WK_STORE_UNCERTAIN'],
    ['gives a local time', json(keys('A', '2030-01-01 00:00')), 'WK_STORE_UNCERTAIN'],
    ['gives an impossible date', json(keys('A', '2030-13-41T00:00:00Z')), 'WK_STORE_UNCERTAIN'],
    ['answers without an end', { body: 'x'.repeat(300_000) }, 'WK_STORE_UNCERTAIN'],
    ['stalls', 'stall', 'WK_STORE_UNCERTAIN'],
    ['resets', 'reset', 'WK_STORE_UNCERTAIN'],
    ['breaks off', 'short', 'WK_STORE_UNCERTAIN'],
  ];

  test.each(cases)('%s', async (_what, reply, code) => {
    await using ecs = await Endpoint.listen(() => reply);
    const options = reply === 'stall' ? { timeoutMs: 100 } : {};
    expect(await failureOf({ ...full(ecs.url), options })).toMatchObject({ code });
  });

  test('is asked again when that can help', async () => {
    const faults: Reply[] = ['reset', json({}, 503)];
    await using ecs = await Endpoint.listen((_asked, n) => faults[n - 1] ?? json(keys('A')));
    expect(await find(full(ecs.url))).toEqual(found);
    expect(ecs.asked.length).toBe(3);
  });

  test('is told when there is nobody', async () => {
    expect(await failureOf(full(await nobody()))).toMatchObject({
      code: 'WK_STORE_UNCERTAIN',
      retryable: true,
    });
  });
});
