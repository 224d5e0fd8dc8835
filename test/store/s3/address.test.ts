import { describe, expect, it } from 'vitest';
import { parsePlace, type S3Place } from '../../../src/store/place.js';
import { Address } from '../../../src/store/s3/address.js';

const at = (text: string, region?: string) => new Address(parsePlace(text) as S3Place, region);
const url = (address: Address, key?: string, query?: Record<string, string>) => {
  const { secure, host, path } = address.target(key, query);
  return `${secure ? 'https' : 'http'}://${host}${path}`;
};

describe('the address of an object', () => {
  it.each([
    ['s3://shop', 'https://shop.s3.us-east-1.amazonaws.com/key'],
    ['s3://shop/a/b', 'https://shop.s3.us-east-1.amazonaws.com/a/b/key'],
    ['s3://shop?region=eu-west-3', 'https://shop.s3.eu-west-3.amazonaws.com/key'],
    ['s3://shop?region=cn-north-1', 'https://shop.s3.cn-north-1.amazonaws.com.cn/key'],
    // No certificate is for a name with a dot more.
    ['s3://shop.example.org', 'https://s3.us-east-1.amazonaws.com/shop.example.org/key'],
    ['s3://shop?style=path', 'https://s3.us-east-1.amazonaws.com/shop/key'],
    ['s3://shop?endpoint=http://minio:9000', 'http://minio:9000/shop/key'],
    ['s3://shop/p?endpoint=https://minio', 'https://minio/shop/p/key'],
    [
      's3://shop?endpoint=https://store.example:8443&style=virtual',
      'https://shop.store.example:8443/key',
    ],
    ['s3://shop?endpoint=http://[::1]:9000', 'http://[::1]:9000/shop/key'],
  ])('%s', (place, expected) => {
    expect(url(at(place), 'key')).toBe(expected);
  });

  it('is for a socket without brackets and with a port', () => {
    expect(at('s3://shop?endpoint=http://[::1]:9000').target('k')).toMatchObject({
      hostname: '::1',
      port: 9000,
    });
    expect(at('s3://shop?endpoint=https://minio').target('k').port).toBe(443);
    expect(at('s3://shop?endpoint=http://minio').target('k').port).toBe(80);
  });

  it('has everything encoded that is not unreserved', () => {
    expect(url(at('s3://shop?endpoint=http://m'), "a b+c/%2F!'()*~ü?#")).toBe(
      'http://m/shop/a%20b%2Bc/%252F%21%27%28%29%2A~%C3%BC%3F%23',
    );
    expect(url(at('s3://shop?endpoint=http://m'), undefined, { prefix: 'a/b c', delete: '' })).toBe(
      'http://m/shop/?prefix=a%2Fb%20c&delete=',
    );
  });

  it('is in the region of the environment unless the place names one', () => {
    expect(at('s3://shop', 'eu-west-1').region).toBe('eu-west-1');
    expect(at('s3://shop?region=eu-west-2', 'eu-west-1').region).toBe('eu-west-2');
  });

  it('moves', () => {
    const address = at('s3://shop/p');
    address.moveTo('eu-west-3');
    expect(url(address, 'k')).toBe('https://shop.s3.eu-west-3.amazonaws.com/p/k');
    expect(address.redirect('https://shop.s3-eu-west-9.amazonaws.com/p/k')).toBe(true);
    expect(url(address, 'k')).toBe('https://shop.s3-eu-west-9.amazonaws.com/p/k');
    // The bytes would go in the clear.
    expect(address.redirect('http://shop.s3.amazonaws.com/p/k')).toBe(false);
    expect(address.redirect('/p/k')).toBe(false);
  });
});
