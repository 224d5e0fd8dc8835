import oracle from 'crc-32/crc32c.js';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { CRC_INIT, crc32c, finishRecordCrc, recordCrc, updateCrc } from '../../src/wal/crc32c.js';

const aligned = (bytes: Uint8Array) => {
  const copy = new Uint8Array((bytes.length + 3) & ~3);
  copy.set(bytes);
  return { copy, words: new Int32Array(copy.buffer) };
};

test('the check value of CRC-32C', () => {
  expect(crc32c(Buffer.from('123456789'))).toBe(0xe3069283);
  expect(crc32c(new Uint8Array(0))).toBe(0);
});

test('any range in any pieces gives what crc-32 gives', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(300), fc.nat(300), (bytes, a, b) => {
      const start = Math.min(a, b, bytes.length);
      const middle = Math.min(Math.max(a, b), bytes.length);
      const expected = oracle.buf(bytes.subarray(start)) >>> 0;
      expect(crc32c(bytes, middle, bytes.length, crc32c(bytes, start, middle))).toBe(expected);
      const { copy, words } = aligned(bytes);
      const first = updateCrc(CRC_INIT, copy, words, start, middle);
      expect(~updateCrc(first, copy, words, middle, bytes.length) >>> 0).toBe(expected);
    }),
  );
});

test('a record: the body first, then 20 bytes of its header', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 24, maxLength: 300 }), fc.nat(3), (record, word) => {
      const order = Buffer.concat([record.subarray(24), record.subarray(0, 20)]);
      const shifted = new Uint8Array(word * 4 + record.length);
      shifted.set(record, word * 4);
      const { copy, words } = aligned(shifted);
      expect(recordCrc(copy, words, word * 4, record.length)).toBe(oracle.buf(order));
      const body = updateCrc(CRC_INIT, copy, words, word * 4 + 24, shifted.length);
      expect(finishRecordCrc(words, word, body)).toBe(oracle.buf(order));
    }),
  );
});
