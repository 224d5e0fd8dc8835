import fc from 'fast-check';
import { expect, test } from 'vitest';
import { ParseError } from '../src/errors.js';
import { formatLsn, parseLsn, toLsn } from '../src/lsn.js';

test('both notations of servers are read', () => {
  expect(parseLsn('0/0')).toBe(0n);
  expect(parseLsn('16/B374D848')).toBe(0x16_b374_d848n);
  expect(parseLsn('1/0000a0F0')).toBe(0x1_0000_a0f0n);
  expect(parseLsn('FFFFFFFF/FFFFFFFF')).toBe(2n ** 64n - 1n);
  expect(formatLsn(0x16_0000_0028n)).toBe('16/28');
});

test.each([
  '',
  '0',
  '/',
  '1/',
  '/1',
  '0/123456789',
  '0/G',
  '0/0 ',
  ' 0/0',
  '-1/0',
  '0x1/0',
  '1/0\n',
])('%j is no LSN', (text) => {
  expect(() => parseLsn(text)).toThrow(ParseError);
});

test('what is printed is read again', () => {
  fc.assert(
    fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), (n) => {
      expect(parseLsn(formatLsn(n))).toBe(n);
    }),
  );
});

test('only 64 unsigned bits', () => {
  expect(toLsn(5n)).toBe(5n);
  expect(() => toLsn(-1n)).toThrow(ParseError);
  expect(() => toLsn(2n ** 64n)).toThrow(ParseError);
});
