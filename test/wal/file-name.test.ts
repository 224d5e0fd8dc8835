import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ParseError } from '../../src/errors.js';
import {
  compressionSuffix,
  floorToSegment,
  historyFileName,
  isValidSegmentSize,
  parseHistoryFileName,
  parseSegmentFileName,
  parseSegmentSize,
  parseStoredName,
  segmentFileName,
  segmentOf,
  segmentOffset,
  segmentStart,
  storedNames,
} from '../../src/wal/file-name.js';

const MB = 1 << 20;

describe('segment file names', () => {
  test('as PostgreSQL writes them', () => {
    expect(segmentFileName(1, segmentOf(0x16_b374_d848n, 16 * MB), 16 * MB)).toBe(
      '0000000100000016000000B3',
    );
    expect(segmentFileName(10, segmentOf(0x16_b374_d848n, MB), MB)).toBe(
      '0000000A0000001600000B37',
    );
    expect(segmentFileName(1, segmentOf(0x2_4000_0000n, 1 << 30), 1 << 30)).toBe(
      '000000010000000200000001',
    );
  });

  test('are read again, with every suffix', () => {
    const sizes = fc.integer({ min: 20, max: 30 }).map((n) => 1 << n);
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 0xffff_ffff }),
        fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
        sizes,
        fc.constantFrom('none', 'gzip', 'lz4', 'zstd' as const),
        fc.boolean(),
        (timeline, lsn, size, compression, partial) => {
          const segment = segmentOf(lsn, size);
          const suffix = compressionSuffix(compression as 'gzip') + (partial ? '.partial' : '');
          const name = segmentFileName(timeline, segment, size) + suffix;
          const expected = { timeline, segment, compression, partial };
          expect(parseSegmentFileName(name, size)).toEqual(expected);
        },
      ),
    );
  });

  test.each([
    '00000001000000000000000',
    '0000000100000000000000011',
    '000000010000000000000001.tmp',
    '000000010000000000000001.partial.gz',
    '00000001000000000000000a',
    '000000010000000000000100',
    '.000000010000000000000001',
    '00000002.history',
    '000000010000000000000001.00000028.backup',
  ])('%s is none', (name) => {
    expect(parseSegmentFileName(name, 16 * MB)).toBeUndefined();
  });

  test('the last eight digits depend on the segment size', () => {
    expect(parseSegmentFileName('000000010000000000000100', 16 * MB)).toBeUndefined();
    expect(parseSegmentFileName('000000010000000000000100', MB)?.segment).toBe(0x100n);
  });
});

test('what a name says whatever the segment size', () => {
  const base = '0000000A00000016000000B3';
  for (const partial of [false, true]) {
    const forms = storedNames(base, partial).map(parseStoredName);
    const compressions = forms.map((f) => f?.kind === 'segment' && f.compression);
    expect(compressions).toEqual(['none', 'gzip', 'lz4', 'zstd']);
    for (const form of forms) expect(form).toMatchObject({ timeline: 10, base, partial });
  }
  expect(parseStoredName(`${base}.00000028.backup`)).toEqual({
    kind: 'backup',
    timeline: 10,
    base,
  });
  const history = { kind: 'history', timeline: 2, base: '00000002.history' };
  expect(parseStoredName('00000002.history')).toEqual(history);
  for (const other of [`${base}.xz`, `${base}.partial.gz`, `.${base}`, '00000002.history.gz']) {
    expect(parseStoredName(other)).toBeUndefined();
  }
});

test('positions in segments', () => {
  const lsn = 0x16_b374_d848n;
  expect(segmentStart(segmentOf(lsn, 16 * MB), 16 * MB)).toBe(0x16_b300_0000n);
  expect(floorToSegment(lsn, 16 * MB)).toBe(0x16_b300_0000n);
  expect(segmentOffset(lsn, 16 * MB)).toBe(0x74_d848);
  expect(floorToSegment(0x16_b300_0000n, 16 * MB)).toBe(0x16_b300_0000n);
});

test('history file names', () => {
  expect(historyFileName(0x1f)).toBe('0000001F.history');
  expect(parseHistoryFileName('0000001F.history')).toBe(31);
  expect(parseHistoryFileName('0000001f.history')).toBeUndefined();
  expect(parseHistoryFileName('0000001F.history.gz')).toBeUndefined();
});

test('segment sizes', () => {
  expect(parseSegmentSize('16MB')).toBe(16 * MB);
  expect(parseSegmentSize('1GB')).toBe(1 << 30);
  expect(parseSegmentSize('1024kB')).toBe(MB);
  for (const text of ['', '16', '16 MB', '3MB', '2GB', '512kB', '-1MB', '1TB']) {
    expect(() => parseSegmentSize(text)).toThrow(ParseError);
  }
  expect([MB, 1 << 30].every(isValidSegmentSize)).toBe(true);
  expect([0, MB - 1, 3 * MB, 2 ** 31, 1.5 * MB, Number.NaN].some(isValidSegmentSize)).toBe(false);
});
