import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { contentOf } from '../../../src/store/content.js';
import { parsePlace, type S3Place } from '../../../src/store/place.js';
import { resolveSettings } from '../../../src/store/s3/credentials/credentials.js';
import { S3Store } from '../../../src/store/s3/store.js';
import { scratchDir } from '../../support/scratch.js';
import { Endpoint } from './credentials/endpoint.js';

const home = scratchDir('home');
mkdirSync(join(home, '.aws'));
writeFileSync(join(home, '.aws', 'config'), '[default]\nregion = of-profile\n');
const keys = { HOME: home, AWS_ACCESS_KEY_ID: 'A', AWS_SECRET_ACCESS_KEY: 's' };

test.each([
  ['the profile', '', {}, 'of-profile'],
  ['the environment', '', { AWS_REGION: 'of-env' }, 'of-env'],
  ['the place', '&region=of-place', { AWS_REGION: 'of-env' }, 'of-place'],
  ['habit', '', { AWS_PROFILE: 'another' }, 'us-east-1'],
])('requests are signed for the region of %s', async (_what, parameters, env, region) => {
  await using service = await Endpoint.listen(() => ({
    status: 404,
    headers: { 'content-type': 'application/xml' },
    body: '<Error><Code>NoSuchKey</Code></Error>',
  }));
  const place = parsePlace(`s3://bucket?endpoint=${service.url}${parameters}`) as S3Place;
  await using store = new S3Store(place, { env: { ...keys, ...env } });
  expect(await Promise.all([store.get('a'), store.get('b')])).toEqual([undefined, undefined]);
  const scopes = service.asked.map(({ headers }) => headers.authorization?.split('/')[2]);
  expect(scopes).toEqual([region, region]);
});

const answer = () => ({
  status: 404,
  headers: { 'content-type': 'application/xml' },
  body: '<Error><Code>NoSuchKey</Code></Error>',
});

/** A profile `shop` with those settings, and a section of services. */
function profileWith(settings: string, services = ''): Record<string, string> {
  const own = scratchDir('home');
  mkdirSync(join(own, '.aws'));
  const text = `[profile shop]\n${settings}\n[services there]\n${services}\n`;
  writeFileSync(join(own, '.aws', 'config'), text);
  return { ...keys, HOME: own, AWS_PROFILE: 'shop' };
}

const ELSEWHERE = 'http://127.0.0.1:1';

test.each<[string, (url: string) => Record<string, string>]>([
  ['AWS_ENDPOINT_URL', (url) => ({ ...keys, AWS_ENDPOINT_URL: url })],
  [
    'AWS_ENDPOINT_URL_S3 before the one for all',
    (url) => ({ ...keys, AWS_ENDPOINT_URL_S3: url, AWS_ENDPOINT_URL: ELSEWHERE }),
  ],
  ['a profile', (url) => profileWith(`endpoint_url = ${url}`)],
  [
    'the services of a profile before the profile',
    (url) =>
      profileWith(
        `services = there\nendpoint_url = ${ELSEWHERE}`,
        `s3 =\n  endpoint_url = ${url}\nsts =\n  endpoint_url = ${ELSEWHERE}`,
      ),
  ],
  [
    'the environment before a profile',
    (url) => ({ ...profileWith(`endpoint_url = ${ELSEWHERE}`), AWS_ENDPOINT_URL: url }),
  ],
])('a place without an endpoint is at that of %s', async (_what, envOf) => {
  await using service = await Endpoint.listen(answer);
  await using store = new S3Store(parsePlace('s3://bucket/p') as S3Place, {
    env: envOf(service.url),
    patience: { whole: 1000 },
  });
  expect(await store.get('key')).toBeUndefined();
  // The bucket's name stands in the path, as with an endpoint of the place.
  expect(service.asked.map(({ path }) => path)).toEqual(['/bucket/p/key']);
});

test('an endpoint of the place counts before all others', async () => {
  await using service = await Endpoint.listen(answer);
  const env = {
    ...profileWith(`endpoint_url = ${ELSEWHERE}`),
    AWS_ENDPOINT_URL: ELSEWHERE,
    AWS_ENDPOINT_URL_S3: ELSEWHERE,
  };
  const place = parsePlace(`s3://bucket?endpoint=${service.url}`) as S3Place;
  await using store = new S3Store(place, { env, patience: { whole: 1000 } });
  expect(await store.get('key')).toBeUndefined();
});

test('AWS_IGNORE_CONFIGURED_ENDPOINT_URLS switches all of them off but that of the place', async () => {
  const env = { ...profileWith(`endpoint_url = ${ELSEWHERE}`), AWS_ENDPOINT_URL: ELSEWHERE };
  const place = parsePlace('s3://bucket') as S3Place;
  expect(await resolveSettings(place, env)).toMatchObject({ endpoint: ELSEWHERE });
  const off = { ...env, AWS_IGNORE_CONFIGURED_ENDPOINT_URLS: 'true' };
  expect(await resolveSettings(place, off)).toMatchObject({ endpoint: undefined });
  const ofProfile = profileWith(
    `endpoint_url = ${ELSEWHERE}\nignore_configured_endpoint_urls = true`,
  );
  expect(await resolveSettings(place, ofProfile)).toMatchObject({ endpoint: undefined });
});

test.each(['https://user:hidden@host', 'https://host/path', 'ftp://host', 'http://'])(
  'a configured endpoint that is %s is told of without a secret',
  async (url) => {
    await using store = new S3Store(parsePlace('s3://bucket') as S3Place, {
      env: { ...keys, AWS_ENDPOINT_URL_S3: url },
    });
    const error = await store.get('key').catch((e) => e);
    expect(error).toMatchObject({ code: 'WK_STORE_ACCESS' });
    expect(`${error.message}${error.hint}`).toContain('AWS_ENDPOINT_URL_S3');
    expect(error.message).not.toContain('hidden');
  },
);

test("the service's own name says what it does with a condition wherever it stands", async () => {
  await using store = new S3Store(parsePlace('s3://bucket') as S3Place, {
    env: { ...keys, AWS_ENDPOINT_URL: 'https://storage.googleapis.com' },
  });
  await expect(store.create('key', contentOf(Buffer.from('x')))).rejects.toMatchObject({
    code: 'WK_STORE_UNSUPPORTED',
  });
});
