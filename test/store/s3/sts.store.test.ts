import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { contentOf } from '../../../src/store/content.js';
import { parsePlace, type S3Place } from '../../../src/store/place.js';
import { resolveCredentials } from '../../../src/store/s3/credentials/credentials.js';
import { S3Store } from '../../../src/store/s3/store.js';
import { missingForRgw, Rgw, RgwServers } from '../../support/rgw.js';
import { scratchDir } from '../../support/scratch.js';
import { bytesOf, openStore } from './stores.js';

describe.skipIf(missingForRgw().length > 0)('a role of a gateway', () => {
  let servers: RgwServers;
  beforeAll(async () => {
    servers = await RgwServers.start({ tokens: true });
  });
  afterAll(() => servers?.stop());

  it('is taken by who may, and has its own rights', async () => {
    const rgw = new Rgw(servers.facts);
    const bucket = await rgw.createBucket();
    const { user, ...keys } = await rgw.createUser();
    const arn = await rgw.createRole(user, {
      Version: '2012-10-17',
      Statement: [
        {
          Effect: 'Allow',
          Action: ['s3:ListBucket', 's3:GetObject', 's3:PutObject'],
          Resource: [`arn:aws:s3:::${bucket}`, `arn:aws:s3:::${bucket}/*`],
        },
      ],
    });
    const home = scratchDir('home');
    mkdirSync(join(home, '.aws'));
    writeFileSync(
      join(home, '.aws', 'config'),
      `[profile base]
aws_access_key_id = ${keys.accessKeyId}
aws_secret_access_key = ${keys.secretAccessKey}
[profile shop]
role_arn = ${arn}
source_profile = base
endpoint_url = ${rgw.facts.http}`,
    );
    const env = { HOME: home };
    const open = (profile: string) => {
      const place = parsePlace(
        `s3://${bucket}?endpoint=${rgw.facts.http}&profile=${profile}`,
      ) as S3Place;
      return { place, store: new S3Store(place, { env }) };
    };
    await using owner = openStore(rgw, bucket);
    await owner.create('old', contentOf(Buffer.from('y')));
    const { place, store } = open('shop');
    const { sessionToken, expiration } = await resolveCredentials(place, env).get();
    expect(sessionToken).toBeDefined();
    expect((expiration as Date).getTime()).toBeGreaterThan(Date.now());
    expect(await store.create('k', contentOf(Buffer.from('x')))).toEqual({ created: true });
    expect((await bytesOf(store, 'k'))?.toString()).toBe('x');
    expect((await bytesOf(store, 'old'))?.toString()).toBe('y');
    await expect(store.remove(['k'])).rejects.toMatchObject({ code: 'WK_STORE_ACCESS' });
    // It is the role that may, not who takes it.
    const base = open('base').store;
    await expect(base.get('old')).rejects.toMatchObject({ code: 'WK_STORE_ACCESS' });
    await Promise.all([store.close(), base.close()]);
  });
});
