import fc from 'fast-check';
import { expect, it } from 'vitest';
import { WalDecoder } from '../../src/wal/decoder.js';
import { WalComparison } from '../../src/wal/same-wal.js';
import { WalVerifier } from '../../src/wal/verifier.js';
import { SWITCH_PLACES, switchedWal } from './switched.js';

const SEGMENT = 1 << 20;

/** Where two copies are other WAL, fed in pieces. */
function difference(a: Buffer, b: Buffer, startLsn: bigint, pieces: readonly number[] = [65_536]) {
  const comparison = new WalComparison({ startLsn: startLsn as never, segmentSize: SEGMENT });
  let i = 0;
  for (let at = 0; at < a.length; i++) {
    const end = Math.min(a.length, at + pieces[i % pieces.length]!);
    const found = comparison.feed(a.subarray(at, end), b.subarray(at, end));
    if (found !== undefined) return at + found;
    at = end;
  }
  return undefined;
}

it.each(SWITCH_PLACES)('nothing behind a switch record %s counts', (_where, at) => {
  const wal = switchedWal(at);
  expect(wal.begin).toBe(at);
  const [a, b] = [0x55, 0xd1].map((byte) => wal.tail((rest) => rest.fill(byte)));
  for (const copy of [a!, b!]) {
    const verifier = new WalVerifier({ startLsn: wal.start, segmentSize: SEGMENT });
    expect(verifier.feed(copy)).toBeUndefined();
    expect(verifier.validEnd).toBe(wal.start + BigInt(copy.length));
    const decoder = new WalDecoder({ startLsn: wal.start, segmentSize: SEGMENT });
    decoder.feed(copy);
    const lsns = [];
    for (let r = decoder.next(); r; r = decoder.next()) lsns.push(r.lsn);
    expect(lsns).toEqual(wal.lsns);
  }
  const pieces = fc.array(fc.integer({ min: 1, max: 90_000 }), { minLength: 1, maxLength: 5 });
  fc.assert(
    fc.property(pieces, (p) => {
      expect(difference(a!, b!, wal.start, p)).toBeUndefined();
      expect(difference(wal.bytes, b!, wal.start, p)).toBeUndefined();
      expect(difference(b!, wal.bytes, wal.start, p)).toBeUndefined();
    }),
    { numRuns: 5 },
  );
});

it.each(SWITCH_PLACES)('a bit before and in a switch record %s does', (_where, at) => {
  const wal = switchedWal(at);
  const random = fc.sample(fc.nat(wal.from - 1), 20);
  for (const place of [...random, wal.from - 1, wal.from - 8]) {
    // Four bytes of a page header, and what fills a record up to a multiple of 8.
    if (place % 8192 >= 20 && place % 8192 < 24) continue;
    const other = Buffer.from(wal.bytes);
    other[place] = other[place]! ^ 1;
    expect(difference(wal.bytes, other, wal.start)).toBe(place);
    expect(difference(other, wal.bytes, wal.start)).toBe(place);
  }
  // And behind the segment that it ends.
  const next = Math.ceil(wal.from / SEGMENT) * SEGMENT;
  const other = wal.tail((rest) => rest.fill(3));
  other[next + 8] = other[next + 8]! ^ 1;
  expect(difference(wal.bytes, other, wal.start)).toBe(next + 8);
});

it('bytes that only align what follows do not count', () => {
  const wal = switchedWal(300_000);
  const other = Buffer.from(wal.bytes);
  const padded = wal.lsns.findLast((lsn) => lsn % 8192n < 4096n)!;
  other[Number(padded - wal.start) + 3025] = 0xff;
  other[5 * 8192 + 20] = 9;
  expect(difference(wal.bytes, other, wal.start)).toBeUndefined();
});
