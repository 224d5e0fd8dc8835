import { describe, expect, it } from 'vitest';
import { UsageError } from '../../src/errors.js';
import { parsePlace } from '../../src/store/place.js';

describe('parsePlace', () => {
  it('takes directories', () => {
    expect(parsePlace('/var/lib/wal')).toMatchObject({ kind: 'directory', path: '/var/lib/wal' });
    expect(parsePlace('wal')).toMatchObject({ path: `${process.cwd()}/wal` });
    expect(parsePlace('file:///var/a%20b')).toMatchObject({ kind: 'directory', path: '/var/a b' });
    // No scheme: a directory may be called so.
    expect(parsePlace('a:b')).toMatchObject({ path: `${process.cwd()}/a:b` });
  });

  it('takes S3', () => {
    expect(parsePlace('s3://Bucket/a/b/?region=eu-central-1&profile=backup')).toEqual({
      kind: 's3',
      text: 's3://Bucket/a/b/?region=eu-central-1&profile=backup',
      bucket: 'Bucket',
      prefix: 'a/b',
      region: 'eu-central-1',
      profile: 'backup',
    });
    expect(parsePlace('s3://shop?endpoint=https://minio:9000&ca=/etc/ca.pem')).toMatchObject({
      prefix: '',
      endpoint: 'https://minio:9000',
      ca: '/etc/ca.pem',
    });
    expect(parsePlace('s3://shop?endpoint=host.example&style=virtual')).toMatchObject({
      endpoint: 'https://host.example',
      style: 'virtual',
    });
  });

  it('stays below the bucket', () => {
    expect(parsePlace('s3://bucket/a/%2e%2e/../../b')).toMatchObject({
      bucket: 'bucket',
      prefix: 'b',
    });
  });

  it('takes ssh', () => {
    expect(parsePlace('ssh://backup/srv/wal')).toEqual({
      kind: 'ssh',
      text: 'ssh://backup/srv/wal',
      host: 'backup',
      path: '/srv/wal',
    });
    expect(parsePlace('ssh://me@[::1]:2222/srv/a%20b')).toMatchObject({
      host: '::1',
      user: 'me',
      port: 2222,
      path: '/srv/a b',
    });
  });

  it.each([
    's3://AKIA:topsecret@bucket/prefix',
    's3://bucket/prefix?secret_access_key=topsecret',
    's3://bucket?X-Amz-Signature=topsecret',
    's3://bucket?token=topsecret',
    'ssh://me:topsecret@host/dir',
    'gs://bucket?password=topsecret',
    's3://bucket?endpoint=https://:topsecret@host',
    's3://bucket?endpoint=https%3A%2F%2FAKIA%3Atopsecret%40host',
    's3://bucket?endpoint=AKIA:topsecret@host',
  ])('refuses a secret and does not repeat it: %s', (text) => {
    const error = thrown(() => parsePlace(text));
    expect(error.message).toContain('secret in it');
    expect(`${error.message} ${error.hint}`).not.toContain('topsecret');
  });

  it.each([
    ['', 'must be named'],
    ['gs://bucket', '"gs" is not known'],
    ['s3://', 'bucket name'],
    ['s3://b', 'bucket name'],
    ['s3://bucket?regoin=x', 'unknown parameter "regoin"'],
    ['s3://bucket?region=a&region=b', 'twice'],
    ['s3://bucket?region=', 'is empty'],
    ['s3://bucket?style=odd', 'must be path or virtual'],
    ['s3://bucket?endpoint=ftp://x', 'its endpoint must be'],
    ['s3://bucket?endpoint=https://x/path', 'its endpoint must be'],
    ['s3://bucket:443/x', 's3://bucket/prefix'],
    ['s3://bucket/%zz', 'not encoded'],
    ['s3://bucket/a%0ab', 'control characters'],
    ['ssh://host', 'ssh://user@host'],
    ['ssh://-oProxyCommand=x/dir', 'ssh'],
    ['ssh://-x@host/dir', 'no user name'],
    ['ssh://host/dir?x=1', 'no parameters'],
    ['file://host/dir', 'file:///absolute'],
    ['file:///dir?x=1', 'no parameters'],
  ])('refuses %s', (text, why) => {
    expect(thrown(() => parsePlace(text)).message).toContain(why);
  });
});

function thrown(call: () => unknown): UsageError {
  try {
    call();
  } catch (e) {
    expect(e).toBeInstanceOf(UsageError);
    return e as UsageError;
  }
  throw new Error('nothing was thrown');
}
