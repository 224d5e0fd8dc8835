import { createHash, createHmac } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { stsEndpoint } from '../../../../src/store/s3/credentials/sts.js';
import { scratchDir } from '../../../support/scratch.js';
import { type Asked, Endpoint, nobody, type Reply, roleKeys, SECRET } from './endpoint.js';
import { failureOf, find, searchOf } from './search.js';

const ROLE = 'arn:aws:iam::123456789012:role/shop';
const refusal = (code: string, message: string, status = 400): Reply => ({
  status,
  body: `<ErrorResponse><Error><Type>Sender</Type><Code>${code}</Code>
    <Message>${message}</Message></Error></ErrorResponse>`,
});

test.each([
  [undefined, 'https://sts.amazonaws.com/', 'us-east-1'],
  ['eu-central-1', 'https://sts.eu-central-1.amazonaws.com/', 'eu-central-1'],
  ['cn-north-1', 'https://sts.cn-north-1.amazonaws.com.cn/', 'cn-north-1'],
  ['us-gov-west-1', 'https://sts.us-gov-west-1.amazonaws.com/', 'us-gov-west-1'],
  ['us-iso-east-1', 'https://sts.us-iso-east-1.c2s.ic.gov/', 'us-iso-east-1'],
  ['eusc-de-east-1', 'https://sts.eusc-de-east-1.amazonaws.eu/', 'eusc-de-east-1'],
])('the region %s has its own endpoint', (region, url, signed) => {
  expect(stsEndpoint(undefined, region)).toEqual({ url: new URL(url), region: signed });
});

test('what is no region makes no host name', () => {
  expect(() => stsEndpoint(undefined, 'x.example.com/')).toThrow('is no region of AWS');
  expect(() => stsEndpoint('sts.example.com', undefined)).toThrow('is no http URL');
});

describe('web identity', () => {
  const pod = (sts: string, more: Record<string, string> = {}) => {
    const file = join(scratchDir('pod'), 'token');
    writeFileSync(file, 'web-identity-token\n');
    return {
      file,
      env: {
        AWS_WEB_IDENTITY_TOKEN_FILE: file,
        AWS_ROLE_ARN: ROLE,
        AWS_ENDPOINT_URL_STS: sts,
        ...more,
      },
    };
  };
  const gives = (id = 'A') => roleKeys('AssumeRoleWithWebIdentity', id);

  test('a service account takes its role, unsigned, with the token of now', async () => {
    await using sts = await Endpoint.listen((_asked, n) => gives(n === 1 ? 'A' : 'B'));
    const { file, env } = pod(sts.url, { AWS_ROLE_SESSION_NAME: 'shop-0' });
    const { source } = searchOf({ env });
    expect(await source.get()).toEqual({
      accessKeyId: 'A',
      secretAccessKey: SECRET,
      sessionToken: 'token of A',
      expiration: new Date('2030-01-01T00:00:00Z'),
    });
    writeFileSync(file, 'next-token');
    source.invalidate();
    expect(await source.get()).toMatchObject({ accessKeyId: 'B' });
    expect(sts.form(0)).toEqual({
      Action: 'AssumeRoleWithWebIdentity',
      Version: '2011-06-15',
      RoleArn: ROLE,
      RoleSessionName: 'shop-0',
      WebIdentityToken: 'web-identity-token',
    });
    expect(sts.form(1).WebIdentityToken).toBe('next-token');
    expect(sts.asked[0]?.headers.authorization).toBeUndefined();
  });

  test('a profile may have it too', async () => {
    await using sts = await Endpoint.listen(() => gives());
    const { file, env } = pod('unused');
    await find({
      env: { AWS_PROFILE: 'shop' },
      config: `[profile shop]
role_arn = ${env.AWS_ROLE_ARN}
web_identity_token_file = ${file}
role_session_name = from-profile
endpoint_url = ${sts.url}`,
    });
    expect(sts.form(0)).toMatchObject({ RoleSessionName: 'from-profile', RoleArn: ROLE });
  });

  test('a token that cannot be read is told by its file', async () => {
    const { env } = pod('http://127.0.0.1');
    const failed = await failureOf({ env: { ...env, AWS_WEB_IDENTITY_TOKEN_FILE: '/nowhere' } });
    expect(failed).toMatchObject({ code: 'WK_STORE_ACCESS', path: '/nowhere' });
  });

  test.each<[string, Reply, string, string?]>([
    [
      'a refusal',
      refusal('AccessDenied', 'Not authorized &lt;here&gt;', 403),
      'WK_STORE_ACCESS',
      'AccessDenied: Not authorized <here>',
    ],
    [
      'a token that it quotes',
      refusal('InvalidIdentityToken', 'web-identity-token is wrong'),
      'WK_STORE_ACCESS',
      'InvalidIdentityToken: *** is wrong',
    ],
    ['an unknown place', { status: 404, body: 'not found' }, 'WK_STORE_ACCESS'],
    ['an identity provider in trouble', refusal('IDPCommunicationError', ''), 'WK_STORE_UNCERTAIN'],
    ['too many questions', refusal('Throttling', 'Rate exceeded'), 'WK_STORE_UNCERTAIN'],
    ['trouble', refusal('InternalFailure', '', 500), 'WK_STORE_UNCERTAIN'],
    ['garbage', { body: `<SecretAccessKey>${SECRET}` }, 'WK_STORE_UNCERTAIN'],
    ['credentials without an id', roleKeys('AssumeRoleWithWebIdentity', ''), 'WK_STORE_UNCERTAIN'],
    ['silence', 'stall', 'WK_STORE_UNCERTAIN'],
    ['half an answer', 'short', 'WK_STORE_UNCERTAIN'],
  ])('%s is told without secrets', async (_what, reply, code, detail) => {
    await using sts = await Endpoint.listen(() => reply);
    const options = reply === 'stall' ? { timeoutMs: 100 } : {};
    const failed = await failureOf({ ...pod(sts.url), options });
    expect(failed).toMatchObject({ code, ...(detail && { detail }) });
  });

  test('nothing else is tried where it fails', async () => {
    await using imds = await Endpoint.listen(() => 'reset');
    const { env } = pod(await nobody(), { AWS_EC2_METADATA_SERVICE_ENDPOINT: imds.url });
    expect(await failureOf({ env })).toMatchObject({ code: 'WK_STORE_UNCERTAIN' });
    expect(imds.asked).toEqual([]);
  });
});

describe('a role of a profile', () => {
  const profile = (more = '') => ({
    config: `[profile shop]
role_arn = ${ROLE}
source_profile = base
region = eu-west-1
${more}`,
    credentials: `[base]
aws_access_key_id = BASE
aws_secret_access_key = ${SECRET}
aws_session_token = token of BASE`,
  });

  test('is asked for with a signature that can be checked', async () => {
    await using sts = await Endpoint.listen(() => roleKeys('AssumeRole', 'A'));
    const found = await find({
      env: { AWS_PROFILE: 'shop', AWS_ENDPOINT_URL_STS: sts.url },
      ...profile('role_session_name = s\nexternal_id = x/y\nduration_seconds = 900'),
    });
    expect(found).toMatchObject({ accessKeyId: 'A', sessionToken: 'token of A' });
    expect(sts.form(0)).toEqual({
      Action: 'AssumeRole',
      Version: '2011-06-15',
      RoleArn: ROLE,
      RoleSessionName: 's',
      ExternalId: 'x/y',
      DurationSeconds: '900',
    });
    const [asked] = sts.asked as [Asked];
    expect(asked.headers['x-amz-security-token']).toBe('token of BASE');
    expect(asked.headers.authorization).toContain('Credential=BASE/');
    expect(asked.headers.authorization).toContain('/eu-west-1/sts/aws4_request');
    expect(signatureOf(asked, SECRET)).toBe(
      /Signature=(\w+)/.exec(asked.headers.authorization!)?.[1],
    );
  });

  test('is asked for by the clock of STS where ours is wrong', async () => {
    const theirs = Date.parse('2026-05-05T12:00:00Z');
    await using sts = await Endpoint.listen(({ headers }) => {
      if (headers['x-amz-date'] === '20260505T120000Z') return roleKeys('AssumeRole', 'A');
      const { body } = refusal('SignatureDoesNotMatch', 'expired', 403) as { body: string };
      return { status: 403, headers: { date: new Date(theirs).toUTCString() }, body };
    });
    const found = await find({
      env: { AWS_PROFILE: 'shop', AWS_ENDPOINT_URL_STS: sts.url },
      options: { now: () => theirs + 3_600_000 },
      ...profile(),
    });
    expect(found).toMatchObject({ accessKeyId: 'A' });
    expect(sts.asked.length).toBe(2);
  });

  test('has a name for its session also where that is set to nothing', async () => {
    await using sts = await Endpoint.listen(() => roleKeys('AssumeRole', 'A'));
    const env = { AWS_PROFILE: 'shop', AWS_ENDPOINT_URL_STS: sts.url, AWS_ROLE_SESSION_NAME: '' };
    await find({ env, ...profile('role_session_name =') });
    expect(sts.form(0).RoleSessionName).toMatch(/^walkeep-\d+$/);
  });

  test('may come from another role, over as many steps as there are', async () => {
    await using sts = await Endpoint.listen((_asked, n) => roleKeys('AssumeRole', `R${n}`));
    const found = await find({
      env: { AWS_PROFILE: 'top', AWS_ENDPOINT_URL_STS: sts.url },
      credentials: profile().credentials,
      config: `${profile().config}
[profile top]
role_arn = arn:aws:iam::1:role/top
source_profile = shop`,
    });
    expect(found).toMatchObject({ accessKeyId: 'R2' });
    expect(sts.form(1).RoleArn).toBe('arn:aws:iam::1:role/top');
    expect(sts.asked[1]?.headers.authorization).toContain('Credential=R1/');
  });

  test('may come from keys in the same profile', async () => {
    await using sts = await Endpoint.listen(() => roleKeys('AssumeRole', 'A'));
    const found = await find({
      env: { AWS_PROFILE: 'own', AWS_ENDPOINT_URL_STS: sts.url },
      config: `[profile own]
role_arn = ${ROLE}
source_profile = own
aws_access_key_id = BASE
aws_secret_access_key = ${SECRET}`,
    });
    expect(found).toMatchObject({ accessKeyId: 'A' });
  });

  test('may come from the container or the environment', async () => {
    await using sts = await Endpoint.listen(() => roleKeys('AssumeRole', 'A'));
    const from = (source: string) =>
      `[profile shop]\nrole_arn = ${ROLE}\ncredential_source = ${source}`;
    const env = {
      ...{ AWS_PROFILE: 'shop', AWS_ENDPOINT_URL_STS: sts.url },
      ...{ AWS_ACCESS_KEY_ID: 'ENV', AWS_SECRET_ACCESS_KEY: SECRET },
    };
    await find({ place: 's3://bucket?profile=shop', env, config: from('Environment') });
    expect(sts.asked[0]?.headers.authorization).toContain('Credential=ENV/');
    await using ecs = await Endpoint.listen(() => ({
      body: JSON.stringify({ AccessKeyId: 'ECS', SecretAccessKey: SECRET, Token: 't' }),
    }));
    const container = { ...env, AWS_CONTAINER_CREDENTIALS_FULL_URI: ecs.url };
    await find({ place: 's3://bucket?profile=shop', env: container, config: from('EcsContainer') });
    expect(sts.asked[1]?.headers.authorization).toContain('Credential=ECS/');
  });

  test.each([
    ['itself', 'source_profile = shop', 'takes its role from itself'],
    ['a circle', 'source_profile = b\n[profile b]\nrole_arn = x\nsource_profile = shop', 'shop, b'],
    ['one that is not there', 'source_profile = gone', 'the profile "gone" is in none of'],
    [
      'one without credentials',
      'source_profile = b\n[profile b]\nregion = x',
      'no credentials in it',
    ],
    ['nothing', '', 'no source_profile and no credential_source'],
    [
      'an unknown source',
      'credential_source = Magic',
      'no source_profile and no credential_source',
    ],
    ['two', 'source_profile = b\ncredential_source = Environment', 'has both'],
    ['a device', 'source_profile = b\nmfa_serial = arn:x', 'wants a code of a device'],
  ])('cannot come from %s', async (_what, lines, message) => {
    const config = `[profile shop]\nrole_arn = ${ROLE}\n${lines}`;
    expect(await failureOf({ env: { AWS_PROFILE: 'shop' }, config })).toMatchObject({
      code: 'WK_STORE_ACCESS',
      message: expect.stringContaining(message),
    });
  });

  test('an endpoint of STS may stand in the services of a profile', async () => {
    await using sts = await Endpoint.listen(() => roleKeys('AssumeRole', 'A'));
    const more = `endpoint_url = ${await nobody()}
services = here
[services here]
s3 =
  endpoint_url = http://127.0.0.1:1
sts =
  endpoint_url = ${sts.url}`;
    await find({ env: { AWS_PROFILE: 'shop' }, ...profile(more) });
    expect(sts.asked.length).toBe(1);
  });
});

/** The signature as AWS describes it, written down a second time. */
function signatureOf({ method, path, headers, body }: Asked, secret: string): string {
  const hash = (text: string) => createHash('sha256').update(text).digest('hex');
  const mac = (key: string | Buffer, text: string) =>
    createHmac('sha256', key).update(text).digest();
  const names = /SignedHeaders=([^,]+)/.exec(headers.authorization ?? '')?.[1] ?? '';
  const signed = names.split(';').map((name) => `${name}:${headers[name]}\n`);
  const canonical = [method, path, '', signed.join(''), names, hash(body)].join('\n');
  const date = headers['x-amz-date'] ?? '';
  const scope = [date.slice(0, 8), 'eu-west-1', 'sts', 'aws4_request'];
  const text = ['AWS4-HMAC-SHA256', date, scope.join('/'), hash(canonical)].join('\n');
  const key = scope.reduce<string | Buffer>((from, part) => mac(from, part), `AWS4${secret}`);
  return mac(key, text).toString('hex');
}
