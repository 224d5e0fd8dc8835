import { expect, test } from 'vitest';
import {
  isSwappedMagic,
  isValidBlockSize,
  majorOfMagic,
  parsePageHeader,
  XLP_FIRST_IS_CONTRECORD,
  XLP_LONG_HEADER,
} from '../../src/wal/page.js';
import { loadFixture } from './fixtures.js';

test.each([14, 15, 16, 17, 18])('the magic of a real server %i', (major) => {
  const f = loadFixture(`mixed-${major}`);
  const page = parsePageHeader(f.bytes.subarray(0, 40));
  expect(majorOfMagic(page.magic)).toBe(major);
  expect(page.address).toBe(f.start);
  expect(page.timeline).toBe(1);
  expect(page.long).toEqual({ systemId: f.systemId, segmentSize: 1 << 20, blockSize: 8192 });
});

test('a short header, and a long one', () => {
  const bytes = Buffer.from(
    '18d10100020000000000000301000000' +
      '7b00000000000000' +
      '4d00000000000000' +
      '0000100000200000',
    'hex',
  );
  expect(parsePageHeader(bytes)).toEqual({
    magic: 0xd118,
    info: XLP_FIRST_IS_CONTRECORD,
    timeline: 2,
    address: 0x1_0300_0000n,
    remaining: 123,
  });
  bytes[2] = XLP_LONG_HEADER;
  expect(parsePageHeader(bytes).long).toEqual({
    systemId: 77n,
    segmentSize: 1 << 20,
    blockSize: 8192,
  });
  expect(parsePageHeader(bytes.subarray(0, 24)).long).toBeUndefined();
});

test('magics and block sizes', () => {
  expect(majorOfMagic(0xd106)).toBeUndefined();
  expect(isSwappedMagic(0x18d1)).toBe(true);
  expect(isSwappedMagic(0xd118)).toBe(false);
  expect([512, 1024, 8192, 65_536].map(isValidBlockSize)).toEqual([false, true, true, true]);
  expect([131_072, 5000, 0, Number.NaN].some(isValidBlockSize)).toBe(false);
});
