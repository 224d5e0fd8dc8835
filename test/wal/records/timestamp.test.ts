import fc from 'fast-check';
import { afterEach, describe, expect, test } from 'vitest';
import { ParseError } from '../../../src/errors.js';
import {
  formatIsoTimestamp,
  formatLocalTimestamp,
  formatTimestamp,
  parseTimestamp,
  type TimestampTz,
  timestampFromSeconds,
} from '../../../src/wal/records/timestamp.js';

const zone = process.env.TZ;
afterEach(() => {
  if (zone === undefined) delete process.env.TZ;
  else process.env.TZ = zone;
});

const at = (micros: bigint) => micros as TimestampTz;

test('microseconds from 2000 on, before and after', () => {
  expect(formatTimestamp(at(0n))).toBe('2000-01-01 00:00:00.000000+00');
  expect(formatTimestamp(at(-1n))).toBe('1999-12-31 23:59:59.999999+00');
  expect(formatTimestamp(at(848_527_459_678_326n))).toBe('2026-11-20 22:04:19.678326+00');
  expect(formatIsoTimestamp(at(1n))).toBe('2000-01-01T00:00:00.000001+00:00');
  expect(timestampFromSeconds(946_684_801n)).toBe(1_000_000n);
  // Infinity, and what no calendar has.
  expect(formatTimestamp(at(2n ** 63n - 1n))).toBe('9223372036854775807 µs from 2000-01-01');
  expect(formatLocalTimestamp(at(-(2n ** 63n)))).toContain('µs from 2000-01-01');
});

test.each([
  ['UTC', '2026-11-20 22:04:19.000001+00'],
  ['Europe/Berlin', '2026-11-20 23:04:19.000001+01'],
  ['America/St_Johns', '2026-11-20 18:34:19.000001-03:30'],
  ['Asia/Kathmandu', '2026-11-21 03:49:19.000001+05:45'],
])('local time in %s', (tz, text) => {
  process.env.TZ = tz;
  const time = parseTimestamp('2026-11-20 22:04:19.000001+00');
  expect(formatLocalTimestamp(time)).toBe(text);
  expect(parseTimestamp(text)).toBe(time);
  expect(parseTimestamp(text.slice(0, 26))).toBe(time);
});

test('summer time: what the clocks skipped or showed twice needs a zone', () => {
  process.env.TZ = 'Europe/Berlin';
  expect(() => parseTimestamp('2026-03-29 02:30:00')).toThrow(/does not exist/);
  expect(() => parseTimestamp('2026-10-25 02:30:00')).toThrow(/occurs twice/);
  expect(parseTimestamp('2026-10-25 02:30+02')).toBe(parseTimestamp('2026-10-25 00:30Z'));
  expect(parseTimestamp('2026-10-25 01:59:59')).toBe(parseTimestamp('2026-10-24 23:59:59Z'));
  expect(parseTimestamp('2026-10-25 03:00')).toBe(parseTimestamp('2026-10-25 02:00Z'));
  process.env.TZ = 'Australia/Lord_Howe';
  expect(() => parseTimestamp('2026-04-05 01:45:00')).toThrow(/occurs twice/);
  expect(() => parseTimestamp('2026-10-04 02:15:00')).toThrow(/does not exist/);
});

describe('input', () => {
  test.each([
    ['2026-11-20', '2026-11-20 00:00:00.000000+00'],
    ['2026-11-20 22:04', '2026-11-20 22:04:00.000000+00'],
    ['2026-11-20T22:04:19.5Z', '2026-11-20 22:04:19.500000+00'],
    ['2026-11-20 22:04:19.678326 UTC', '2026-11-20 22:04:19.678326+00'],
    [' 2026-11-20  22:04:19,678326 +0530 ', '2026-11-20 16:34:19.678326+00'],
    ['2026-11-20 22:04:19-03:30', '2026-11-21 01:34:19.000000+00'],
    ['2024-02-29 00:00:00+00', '2024-02-29 00:00:00.000000+00'],
  ])('%s', (text, expected) => {
    process.env.TZ = 'UTC';
    expect(formatTimestamp(parseTimestamp(text))).toBe(expected);
  });

  test.each([
    ...['', 'yesterday', '2026-11', '2026-13-01', '2026-02-29', '2026-11-20 24:00', '0000-01-01'],
    ...['2026-11-20 22:04:60', '2026-11-20 22:04:19.1234567', '2026-11-20 22', '1700000000'],
    ...['2026-11-20 22:04 CET', '2026-11-20+1'],
  ])('"%s" is refused', (text) => {
    expect(() => parseTimestamp(text)).toThrow(ParseError);
  });
});

test('what is formatted is read back the same', () => {
  const any = fc.bigInt({ min: -(10n ** 16n), max: 10n ** 17n });
  fc.assert(
    fc.property(any, fc.constantFrom('UTC', 'Europe/Berlin', 'America/St_Johns'), (micros, tz) => {
      process.env.TZ = tz;
      expect(parseTimestamp(formatTimestamp(at(micros)))).toBe(micros);
      expect(parseTimestamp(formatIsoTimestamp(at(micros)))).toBe(micros);
      expect(parseTimestamp(formatLocalTimestamp(at(micros)))).toBe(micros);
    }),
    { numRuns: 500 },
  );
});
