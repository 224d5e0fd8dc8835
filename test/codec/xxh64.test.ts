import fc from 'fast-check';
import { expect, it } from 'vitest';
import { Xxh64 } from '../../src/codec/zstd/xxh64.js';

function hashOf(...parts: Uint8Array[]): string {
  const hash = new Xxh64();
  for (const part of parts) hash.update(part);
  return hash.digest().toString(16).padStart(16, '0');
}

it('gives the reference values', () => {
  const of = (text: string) => hashOf(Buffer.from(text));
  expect(of('')).toBe('ef46db3751d8e999');
  expect(of('a')).toBe('d24ec4f1a98c6e5b');
  expect(of('abc')).toBe('44bc2cf5ad770999');
  expect(of('Nobody inspects the spammish repetition')).toBe('fbcea83c8a378bf1');
});

it('does not depend on the cuts, nor on others that are under way', () => {
  const bytes = Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * i) >> 3));
  const cuts = fc.array(fc.nat(bytes.length), { maxLength: 6 });
  const whole = hashOf(bytes);
  fc.assert(
    fc.property(cuts, (at) => {
      const [one, other] = [new Xxh64(), new Xxh64()];
      let from = 0;
      for (const cut of [...at.sort((a, b) => a - b), bytes.length]) {
        one.update(bytes.subarray(from, cut));
        other.update(bytes.subarray(0, 100));
        from = cut;
      }
      expect(one.digest().toString(16).padStart(16, '0')).toBe(whole);
    }),
    { numRuns: 200 },
  );
});
