import { describe, expect, test } from 'vitest';
import { type Asked, Endpoint, json, keys, nobody, type Reply } from './endpoint.js';
import { failureOf, find, searchOf } from './search.js';

const ROLES = '/latest/meta-data/iam/security-credentials/';

/** The metadata service of an instance with a role; what is given replaces an answer. */
const service = (special: Record<string, Reply | (() => Reply)> = {}) =>
  Endpoint.listen(({ method, path, headers }: Asked) => {
    const own = special[path];
    if (own) return typeof own === 'function' ? own() : own;
    if (path === '/latest/api/token') {
      const ok = method === 'PUT' && headers['x-aws-ec2-metadata-token-ttl-seconds'] === '21600';
      return ok ? { body: 'imds-token' } : json({}, 400);
    }
    if (headers['x-aws-ec2-metadata-token'] !== 'imds-token') return json({}, 401);
    if (path === ROLES) return { body: 'shop-role' };
    if (path === `${ROLES}shop-role`) return json(keys('A'));
    return json({}, 404);
  });

const at = (url: string, more: Record<string, string> = {}) => ({
  env: {
    AWS_EC2_METADATA_SERVICE_ENDPOINT: url,
    AWS_METADATA_SERVICE_TIMEOUT: '60',
    ...more,
  },
});

test('an instance has those of its role, by version 2 alone', async () => {
  await using imds = await service();
  expect(await find(at(imds.url))).toMatchObject({ accessKeyId: 'A', sessionToken: 'token of A' });
  expect(imds.asked.map(({ method, path }) => `${method} ${path}`)).toEqual([
    'PUT /latest/api/token',
    `GET ${ROLES}`,
    `GET ${ROLES}shop-role`,
  ]);
});

test('it is never asked through a proxy', async () => {
  await using imds = await service();
  const proxies = { HTTP_PROXY: await nobody(), http_proxy: await nobody(), HTTPS_PROXY: 'x' };
  expect(await find(at(imds.url, proxies))).toMatchObject({ accessKeyId: 'A' });
});

test('version 1 is never used, also where there is no other', async () => {
  await using imds = await service({ '/latest/api/token': json({}, 404) });
  expect(await failureOf(at(imds.url))).toMatchObject({ code: 'WK_STORE_ACCESS' });
  expect(imds.asked.map(({ path }) => path)).toEqual(['/latest/api/token']);
});

test('they are asked for anew when the store has refused them', async () => {
  let id = 'A';
  await using imds = await service({ [`${ROLES}shop-role`]: () => json(keys(id)) });
  const { source } = searchOf(at(imds.url));
  expect(await source.get()).toMatchObject({ accessKeyId: 'A' });
  id = 'B';
  expect(await source.get()).toMatchObject({ accessKeyId: 'A' });
  source.invalidate();
  expect(await source.get()).toMatchObject({ accessKeyId: 'B' });
});

test('a service that fails once it has answered is one in trouble', async () => {
  let reply: Reply = json(keys('A'));
  await using imds = await service({ [`${ROLES}shop-role`]: () => reply });
  const { source } = searchOf(at(imds.url));
  await source.get();
  reply = 'reset';
  source.invalidate();
  await expect(source.get()).rejects.toMatchObject({ code: 'WK_STORE_UNCERTAIN' });
});

test('it is not asked where the user has switched it off', async () => {
  await using imds = await service();
  const failed = await failureOf(at(imds.url, { AWS_EC2_METADATA_DISABLED: 'TRUE' }));
  expect(failed.message).toBe('there are no credentials for the object store');
  expect(imds.asked).toEqual([]);
});

describe('where it is not', () => {
  test.each([
    ['nobody listens', () => nobody()],
    ['no address has the name', async () => 'http://nowhere.invalid'],
  ])('%s: there are no credentials', async (_what, url) => {
    expect(await failureOf(at(await url()))).toMatchObject({
      code: 'WK_STORE_ACCESS',
      message: 'there are no credentials for the object store',
      hint: expect.stringContaining('AWS_ACCESS_KEY_ID'),
      detail: expect.stringContaining('the metadata service of EC2'),
    });
  });

  test.each([403, 404, 405])(
    'another cloud answers %i: there are no credentials',
    async (status) => {
      await using imds = await service({ '/latest/api/token': json({}, status) });
      expect(await failureOf(at(imds.url))).toMatchObject({
        code: 'WK_STORE_ACCESS',
        message: 'there are no credentials for the object store',
        detail: expect.stringContaining(String(status)),
      });
    },
  );

  test('silence costs as many tries and as long as was said', async () => {
    await using imds = await Endpoint.listen(() => 'stall');
    const more = { AWS_METADATA_SERVICE_NUM_ATTEMPTS: '3', AWS_METADATA_SERVICE_TIMEOUT: '0.05' };
    await failureOf(at(imds.url, more));
    expect(imds.asked.length).toBe(3);
  });
});

describe('a wrong answer', () => {
  test.each<[string, Record<string, Reply>, string]>([
    ['no role', { [ROLES]: json({}, 404) }, 'WK_STORE_ACCESS'],
    ['an empty name of a role', { [ROLES]: { body: '' } }, 'WK_STORE_UNCERTAIN'],
    ['a page for a role', { [ROLES]: { body: '<html>' } }, 'WK_STORE_UNCERTAIN'],
    ['a token refused', { [ROLES]: json({}, 401) }, 'WK_STORE_ACCESS'],
    [
      'a failure of the role',
      { [`${ROLES}shop-role`]: json({ Code: 'AssumeRoleUnauthorizedAccess' }) },
      'WK_STORE_UNCERTAIN',
    ],
    ['garbage', { [`${ROLES}shop-role`]: { body: '{"AccessKeyId' } }, 'WK_STORE_UNCERTAIN'],
    ['trouble', { [`${ROLES}shop-role`]: json({}, 500) }, 'WK_STORE_UNCERTAIN'],
  ])('%s gives none', async (_what, special, code) => {
    await using imds = await service(special);
    expect(await failureOf(at(imds.url))).toMatchObject({ code });
  });
});

test('an endpoint must be a URL', async () => {
  expect(await failureOf(at('here'))).toMatchObject({ code: 'WK_STORE_ACCESS' });
});
