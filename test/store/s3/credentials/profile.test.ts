import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { parseSections } from '../../../../src/store/s3/credentials/profile-file.js';
import { SECRET } from './endpoint.js';
import { failureOf, find, searchOf } from './search.js';

const keys = (name: string, id: string) =>
  `[${name}]\naws_access_key_id = ${id}\naws_secret_access_key = ${SECRET}\n`;

describe('the shared files', () => {
  const settings = (text: string) =>
    Object.fromEntries(
      [...parseSections(text)].map(([name, of]) => [name, Object.fromEntries(of)]),
    );

  test.each<[string, string, unknown]>([
    ['comments and blanks', '# x\n; y\n\n[a]\n# z\nk = v\n', { a: { k: 'v' } }],
    [
      'comments behind values',
      '[a] # x\nk = v # x\nl = v#x\nm = # x',
      { a: { k: 'v', l: 'v#x', m: '' } },
    ],
    ['names in any case', '[a]\nKey_ID=V', { a: { key_id: 'V' } }],
    ['an equals sign in a value', '[a]\nk = a=b==', { a: { k: 'a=b==' } }],
    ['line ends of Windows', '[a]\r\nk = v\r\n', { a: { k: 'v' } }],
    [
      'lines below a setting',
      '[a]\ns3 =\n  x = 1\n  y = 2\nk = v',
      { a: { s3: '', 's3.x': '1', 's3.y': '2', k: 'v' } },
    ],
    ['quotes around a name', '[profile "my shop"]\nk = v', { 'profile my shop': { k: 'v' } }],
    ['blanks in a heading', '[ profile   a ]\nk = v', { 'profile a': { k: 'v' } }],
    ['a section twice', '[a]\nk = 1\nl = 1\n[a]\nk = 2', { a: { k: '2', l: '1' } }],
    ['what is nothing', 'k = v\n[a]\nnonsense\nk = v', { a: { k: 'v' } }],
  ])('%s', (_what, text, expected) => expect(settings(text)).toEqual(expected));
});

test('a profile is in either file, and credentials count before the configuration', async () => {
  const files = {
    config: `${keys('profile shop', 'CONFIG')}[profile only]\n${keys('x', 'ONLY').split('\n').slice(1).join('\n')}`,
    credentials: keys('shop', 'CREDENTIALS'),
  };
  const of = async (profile: string) =>
    (await find({ env: { AWS_PROFILE: profile }, ...files })).accessKeyId;
  expect(await of('shop')).toBe('CREDENTIALS');
  expect(await of('only')).toBe('ONLY');
});

test('without a name it is the one called default, in both of its spellings', async () => {
  expect(await find({ credentials: keys('default', 'A') })).toMatchObject({ accessKeyId: 'A' });
  const config = `${keys('profile default', 'B')}${keys('default', 'A')}`;
  expect(await find({ config })).toMatchObject({ accessKeyId: 'B' });
});

test('the files may be elsewhere', async () => {
  const search = searchOf({
    env: { AWS_SHARED_CREDENTIALS_FILE: '~/own', AWS_CONFIG_FILE: '~/own.conf' },
    credentials: keys('default', 'WRONG'),
  });
  writeFileSync(join(search.home, 'own'), keys('default', 'A'));
  writeFileSync(join(search.home, 'own.conf'), '[default]\nregion = eu-north-1');
  expect(await search.source.get()).toMatchObject({ accessKeyId: 'A' });
  expect(await search.region()).toBe('eu-north-1');
});

test('keys that were rotated are read when the store has refused the old', async () => {
  const { home, source } = searchOf({ credentials: keys('default', 'OLD') });
  await source.get();
  writeFileSync(join(home, '.aws', 'credentials'), keys('default', 'NEW'));
  expect(await source.get()).toMatchObject({ accessKeyId: 'OLD' });
  source.invalidate();
  expect(await source.get()).toMatchObject({ accessKeyId: 'NEW' });
});

describe('the order', () => {
  const env = { AWS_ACCESS_KEY_ID: 'ENV', AWS_SECRET_ACCESS_KEY: SECRET };
  const credentials = keys('default', 'DEFAULT') + keys('shop', 'SHOP');

  test('the environment counts before a profile', async () => {
    const found = await find({ env: { ...env, AWS_PROFILE: 'shop' }, credentials });
    expect(found).toEqual({ accessKeyId: 'ENV', secretAccessKey: SECRET });
  });

  test('a profile in the place counts before the environment', async () => {
    const found = await find({ place: 's3://bucket?profile=shop', env, credentials });
    expect(found).toMatchObject({ accessKeyId: 'SHOP' });
  });

  test('half a pair in the environment is refused: it was meant', async () => {
    const failed = await failureOf({ env: { AWS_SECRET_ACCESS_KEY: SECRET }, credentials });
    expect(failed).toMatchObject({ code: 'WK_STORE_ACCESS' });
  });

  test('a profile with a region only leaves credentials to the others', async () => {
    const failed = await failureOf({
      env: { AWS_PROFILE: 'r' },
      config: '[profile r]\nregion = x',
    });
    expect(failed.message).toBe('there are no credentials for the object store');
  });
});

test.each([
  ['is not there', { env: { AWS_PROFILE: 'gone' } }, 'the profile "gone" is in none of'],
  [
    'of the place is not there',
    { place: 's3://bucket?profile=gone' },
    'the profile "gone" is in none of',
  ],
  ['has half a pair', { credentials: '[default]\naws_access_key_id = A' }, 'has only one of'],
])('a profile that %s is refused', async (_what, search, message) => {
  expect(await failureOf(search)).toMatchObject({
    code: 'WK_STORE_ACCESS',
    message: expect.stringContaining(message),
  });
});

test('a file that cannot be read is no file that is not there', async () => {
  const { home } = searchOf({});
  expect(await failureOf({ env: { AWS_SHARED_CREDENTIALS_FILE: home } })).toMatchObject({
    code: 'WK_STORE_ACCESS',
    path: home,
  });
});

test.skipIf(process.getuid?.() === 0)(
  'a home that may not be entered is as good as none (root may enter all)',
  async () => {
    const search = searchOf({ credentials: keys('default', 'A') });
    const directory = join(search.home, '.aws');
    chmodSync(directory, 0);
    try {
      expect(await search.region()).toBeUndefined();
      const { home: HOME } = search;
      expect((await failureOf({ env: { HOME } })).message).toContain('there are no credentials');
      const named = { AWS_CONFIG_FILE: join(directory, 'config') };
      expect(await failureOf({ env: named })).toMatchObject({ code: 'WK_STORE_ACCESS' });
    } finally {
      chmodSync(directory, 0o700);
    }
  },
);

describe('the region', () => {
  const config = '[default]\nregion = from-profile\n[profile shop]\nregion = from-shop';
  test.each([
    ['the place', 's3://bucket?region=from-place', { AWS_REGION: 'from-env' }, 'from-place'],
    [
      'the environment',
      's3://bucket',
      { AWS_REGION: 'from-env', AWS_DEFAULT_REGION: 'x' },
      'from-env',
    ],
    ['its other name', 's3://bucket', { AWS_DEFAULT_REGION: 'from-env' }, 'from-env'],
    ['the profile', 's3://bucket', {}, 'from-profile'],
    ['a profile by name', 's3://bucket?profile=shop', {}, 'from-shop'],
    ['nothing', 's3://bucket', { AWS_PROFILE: 'other' }, undefined],
  ])('is that of %s', async (_what, place, env: Record<string, string>, region) => {
    expect(await searchOf({ place, env, config }).region()).toBe(region);
  });
});

describe('a profile that signs in by a browser', () => {
  const search = {
    env: { AWS_PROFILE: 'sso' },
    config: '[profile sso]\nsso_session = s\nsso_account_id = 1\nsso_role_name = r',
  };

  test('needs the package of the AWS SDK, and says so', async () => {
    expect(await failureOf(search)).toMatchObject({
      code: 'WK_STORE_ACCESS',
      message: expect.stringContaining('the profile "sso"'),
      hint: expect.stringContaining('@aws-sdk/credential-providers'),
    });
  });

  test('has its credentials from there, with the files that count', async () => {
    const asked: unknown[] = [];
    const credentials = { accessKeyId: 'A', secretAccessKey: SECRET, $source: {} };
    const fromSSO = (options: object) => {
      asked.push(options);
      return async () => credentials;
    };
    const { source, home } = searchOf({
      ...search,
      options: { importProviders: async () => ({ fromSSO }) },
    });
    expect(await source.get()).toEqual({ accessKeyId: 'A', secretAccessKey: SECRET });
    const file = (name: string) => join(home, '.aws', name);
    expect(asked).toEqual([
      { profile: 'sso', configFilepath: file('config'), filepath: file('credentials') },
    ]);
  });

  test('may need one that is newer', async () => {
    const config = '[profile sso]\nlogin_session = arn:aws:iam::1:user/u';
    const importProviders = async () => ({});
    expect(await failureOf({ ...search, config, options: { importProviders } })).toMatchObject({
      code: 'WK_STORE_ACCESS',
      hint: expect.stringContaining('newer'),
    });
  });

  test('says what to do when the session has ended', async () => {
    const importProviders = async () => ({
      fromSSO: () => async () => {
        throw new Error('The SSO session has expired');
      },
    });
    expect(await failureOf({ ...search, options: { importProviders } })).toMatchObject({
      code: 'WK_STORE_ACCESS',
      hint: expect.stringContaining('aws sso login'),
    });
  });
});
