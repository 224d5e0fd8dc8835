import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { parsePlace, type S3Place } from '../../../src/store/place.js';
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
