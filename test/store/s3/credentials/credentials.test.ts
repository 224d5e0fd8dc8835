import { describe, expect, it } from 'vitest';
import { StoreAccessError } from '../../../../src/errors.js';
import { parsePlace, type S3Place } from '../../../../src/store/place.js';
import { resolveCredentials } from '../../../../src/store/s3/credentials/credentials.js';

const place = parsePlace('s3://bucket') as S3Place;

describe('resolveCredentials', () => {
  it('takes the environment', async () => {
    const source = resolveCredentials(place, {
      AWS_ACCESS_KEY_ID: 'id',
      AWS_SECRET_ACCESS_KEY: 'key',
    });
    expect(await source.get()).toEqual({ accessKeyId: 'id', secretAccessKey: 'key' });
  });

  it('takes the token of temporary ones', async () => {
    const source = resolveCredentials(place, {
      AWS_ACCESS_KEY_ID: 'id',
      AWS_SECRET_ACCESS_KEY: 'key',
      AWS_SESSION_TOKEN: 'token',
    });
    expect(await source.get()).toMatchObject({ sessionToken: 'token' });
  });

  it('refuses half of it, which would sign what nobody accepts', async () => {
    const source = resolveCredentials(place, { AWS_ACCESS_KEY_ID: 'id' });
    await expect(source.get()).rejects.toThrow(StoreAccessError);
  });

  it.each([
    ['AWS_ACCESS_KEY_ID', 'access key ID'],
    ['AWS_SECRET_ACCESS_KEY', 'secret access key'],
    ['AWS_SESSION_TOKEN', 'session token'],
  ])('refuses a line end in %s without quoting it', async (name, what) => {
    const env = {
      AWS_ACCESS_KEY_ID: 'id',
      AWS_SECRET_ACCESS_KEY: 'key',
      AWS_SESSION_TOKEN: 'token',
      [name]: 'hidden\n',
    };
    const error = await resolveCredentials(place, env)
      .get()
      .catch((e) => e);
    expect(error).toMatchObject({ code: 'WK_STORE_ACCESS', retryable: false });
    expect(error.message).toContain(what);
    expect(`${error.message} ${error.hint}`).not.toContain('hidden');
  });
});
