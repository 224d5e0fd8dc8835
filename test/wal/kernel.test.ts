import crc32c from 'crc-32/crc32c.js';
import { describe, expect, test } from 'vitest';
import { copyChunk, walBuffers } from '../../src/wal/chunk.js';
import { WalDecoder } from '../../src/wal/decoder.js';
import { loadKernel } from '../../src/wal/kernel.js';
import { type RecordKinds, recordKinds, type WalRecord } from '../../src/wal/record.js';
import { RecordCollector } from '../../src/wal/record-collector.js';
import { WalVerifier } from '../../src/wal/verifier.js';
import { WalWalker } from '../../src/wal/walker.js';
import { randomNumbers } from '../support/archives.js';
import { FIXTURES, loadFixture, optionsFor } from './fixtures.js';

const kernel = loadKernel()!;
const buffer = walBuffers()[0]!;

describe('the WebAssembly kernel', () => {
  test('is there', () => {
    expect(loadKernel()).toBeDefined();
    expect(buffer.buffer).toBe(kernel.bytes.buffer);
    expect(walBuffers().every((b) => b.length % 65_536 === 0)).toBe(true);
  });

  test('takes the CRC of any length at any place, in pieces too', () => {
    const random = randomNumbers(3);
    for (let i = 0; i < 20_000; i++) buffer[i] = random() * 256;
    for (let length = 0; length < 1200; length++) {
      const start = Math.floor(random() * 1000);
      const expected = crc32c.buf(buffer.subarray(start, start + length));
      const at = buffer.byteOffset + start;
      const cut = at + Math.floor(random() * (length + 1));
      expect(~kernel.crc(-1, at, at + length)).toBe(expected);
      expect(~kernel.crc(kernel.crc(-1, at, cut), cut, at + length)).toBe(expected);
    }
  });

  // The walker's own loops are used for memory that is not the kernel's.
  test.each(FIXTURES)('finds in %s what JavaScript finds, damaged or not', (name) => {
    const f = loadFixture(name);
    const random = randomNumbers(f.bytes.length);
    const used = Number(f.end - f.start);
    for (let i = 0; i < 60; i++) {
      const bytes = Buffer.from(f.bytes);
      if (i > 0) {
        const at = Math.floor(random() * used);
        bytes[at] = bytes[at]! ^ (1 << Math.floor(random() * 8));
      }
      const fast = new WalVerifier(optionsFor(f));
      for (let at = 0; at < bytes.length; at += buffer.length) {
        const n = bytes.copy(buffer, 0, at, at + buffer.length);
        fast.feed(buffer, 0, n);
      }
      const slow = new WalWalker(optionsFor(f));
      const chunk = copyChunk(bytes, f.start);
      slow.walk(chunk.bytes, chunk.words, chunk.from, chunk.to);
      expect(fast.fault).toEqual(slow.fault);
      expect(fast.validEnd).toBe(slow.validEnd);
    }
  });

  /** Few are ever told apart in one thread. */
  const known = new Map<unknown, RecordKinds>();
  const kindsOf = (select: (rmgr: number, info: number) => boolean): RecordKinds => {
    const kinds = known.get(select) ?? recordKinds(select);
    known.set(select, kinds);
    return kinds;
  };
  const selections: [string, (rmgr: number, info: number) => boolean][] = [
    ['two managers', (rmgr) => rmgr < 2],
    ['few kinds of many', (rmgr, info) => rmgr === 1 || (rmgr === 10 && (info & 0x70) === 0x20)],
    ['the last kind', (rmgr, info) => rmgr === 255 && info >= 0xf0],
    ['every second kind', (_, info) => (info & 0x10) !== 0],
  ];
  const all = FIXTURES.flatMap((name) => selections.map(([of, s]) => [of, name, s] as const));
  test.each(all)('gives who names %s the records of %s that a decoder gives', (_, name, select) => {
    const f = loadFixture(name);
    const random = randomNumbers(f.bytes.length + 1);
    for (let i = 0; i < 2; i++) {
      const decoder = new WalDecoder({ ...optionsFor(f), select, partial: true });
      decoder.feed(f.bytes);
      const expected: WalRecord[] = [];
      for (let r = decoder.next(); r; r = decoder.next()) expected.push(r);
      const collector = new RecordCollector(2 ** 30, select);
      const found: WalRecord[] = [];
      const verifier = new WalVerifier(optionsFor(f), {
        kinds: kindsOf(select),
        begin: (header, at, hi, lo) => collector.begin(header, at, hi, lo),
        body: (bytes, start, end) => collector.body(bytes, start, end),
        complete: (end) => {
          collector.complete(end);
          found.push(collector.take()!);
        },
        abandon: () => collector.abandon(),
      });
      for (let at = 0; at < f.bytes.length; ) {
        const n = Math.ceil(random() * 3 * 8192);
        verifier.feed(f.bytes.subarray(at, at + n));
        at += n;
      }
      expect(found).toEqual(expected);
      expect(verifier.validEnd).toBe(decoder.validEnd);
    }
  });

  test('has place for a few selections, and others are as right without it', () => {
    const f = loadFixture(FIXTURES[0]!);
    const select = (rmgr: number) => rmgr < 2;
    const found = Array.from({ length: 9 }, () => {
      const lsns: string[] = [];
      const verifier = new WalVerifier(optionsFor(f), {
        kinds: recordKinds(select),
        begin: (header, at, hi, lo) => {
          if (select(header[at + 17]!)) lsns.push(`${hi}/${lo}`);
          return false;
        },
        body: () => {},
        complete: () => {},
        abandon: () => {},
      });
      verifier.feed(f.bytes);
      return lsns;
    });
    expect(found[0]?.length).toBeGreaterThan(0);
    for (const lsns of found) expect(lsns).toEqual(found[0]);
    expect(kernel.addressOf(recordKinds(select))).toBeUndefined();
  });
});
