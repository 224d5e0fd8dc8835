import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseCompression } from '../../src/cli/compression.js';
import { UsageError } from '../../src/errors.js';
import type { CompressionOption } from '../../src/receive/options.js';

const invalid = (reason: string) => `invalid compression specification: ${reason}`;
const gzipLevel = invalid(
  'compression algorithm "gzip" expects a compression level between 1 and 9 (default at -1)',
);

// Outcomes of pg_receivewal 15.20 on the same texts, `long` (new in 16) read from 18.4's sources.
describe('parseCompression', () => {
  it.each<[string, CompressionOption]>([
    ['none', { method: 'none' }],
    ['none:0', { method: 'none' }],
    ['0', { method: 'none' }],
    ['', { method: 'none' }],
    ['gzip', { method: 'gzip' }],
    ['1', { method: 'gzip', level: 1 }],
    [' 5', { method: 'gzip', level: 5 }],
    ['-1', { method: 'gzip' }],
    ['gzip:-1', { method: 'gzip' }],
    ['gzip:9', { method: 'gzip', level: 9 }],
    ['gzip:level=9', { method: 'gzip', level: 9 }],
    ['gzip:level=12,level=3', { method: 'gzip', level: 3 }],
    ['lz4', { method: 'lz4' }],
    ['lz4:0', { method: 'lz4' }],
    ['lz4:12', { method: 'lz4', level: 12 }],
  ])('%j', (text, expected) => {
    expect(parseCompression(text)).toEqual(expected);
  });

  it.each<[string, string]>([
    ['foo', 'unrecognized compression algorithm: "foo"'],
    ['foo:3', 'unrecognized compression algorithm: "foo"'],
    ['1x', 'unrecognized compression algorithm: "1x"'],
    ['5:3', 'unrecognized compression algorithm: "5"'],
    [' ', 'unrecognized compression algorithm: " "'],
    ['constructor', 'unrecognized compression algorithm: "constructor"'],
    ['zstd', 'compression with ZSTD is not yet supported'],
    ['zstd:long', 'compression with ZSTD is not yet supported'],
    ['12', gzipLevel],
    ['-2', gzipLevel],
    ['gzip:0', gzipLevel],
    ['gzip:12', gzipLevel],
    ['99999999999999999999', gzipLevel],
    [
      'lz4:13',
      invalid(
        'compression algorithm "lz4" expects a compression level between 1 and 12 (default at 0)',
      ),
    ],
    [
      'zstd:99',
      invalid(
        'compression algorithm "zstd" expects a compression level between -131072 and 22 (default at 3)',
      ),
    ],
    ['none:1', invalid('compression algorithm "none" does not accept a compression level')],
    ['gzip:', invalid('found empty string where a compression option was expected')],
    ['gzip:level=4,', invalid('found empty string where a compression option was expected')],
    ['gzip:bogus', invalid('unrecognized compression option: "bogus"')],
    ['gzip:level', invalid('compression option "level" requires a value')],
    ['gzip:workers', invalid('compression option "workers" requires a value')],
    ['gzip:level=x', invalid('value for compression option "level" must be an integer')],
    ['gzip:workers=2', invalid('compression algorithm "gzip" does not accept a worker count')],
    ['gzip:long=maybe', invalid('value for compression option "long" must be a Boolean value')],
    ['gzip:long=ON', invalid('compression algorithm "gzip" does not support long-distance mode')],
  ])('%j is refused', (text, message) => {
    expect(() => parseCompression(text)).toThrow(new UsageError(message));
  });

  it('fails with a UsageError or not at all', () => {
    const word = fc.oneof(
      fc.string(),
      fc.constantFrom(
        'gzip',
        'lz4',
        'zstd',
        'none',
        'level',
        'long',
        'workers',
        ':',
        ',',
        '=',
        '3',
      ),
    );
    fc.assert(
      fc.property(fc.array(word), (words) => {
        try {
          parseCompression(words.join(''));
        } catch (error) {
          expect(error).toBeInstanceOf(UsageError);
        }
      }),
    );
  });
});
