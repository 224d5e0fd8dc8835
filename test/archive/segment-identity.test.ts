import { expect, it } from 'vitest';
import { identifySegment } from '../../src/archive/segment-identity.js';
import { makeWal } from '../wal/synthetic.js';

const blockSize = 8192;
const wal = makeWal([{ body: Buffer.alloc(2 * blockSize, 1) }], { start: 0x500_0000n });
const name = '000000010000000000000050';
const expected = { name, systemId: 77n, segmentSize: 1 << 20, blockSize };
const stateOf = (bytes: Uint8Array, more: Partial<typeof expected> = {}) =>
  identifySegment(bytes, { ...expected, ...more }).state;

it('tells the segment from another one, another cluster and what is no page', () => {
  const { bytes } = wal;
  expect(identifySegment(bytes, expected)).toMatchObject({
    state: 'this',
    header: { systemId: 77n, pageAddress: 0x500_0000n },
  });
  expect(stateOf(bytes, { name: `${name}.gz.partial` })).toBe('this');
  expect(stateOf(bytes, { name: '000000010000000000000051' })).toBe('another');
  // No segment of that size has the name.
  expect(stateOf(bytes, { name: '0000000100000000FFFFFFFF' })).toBe('another');
  expect(stateOf(bytes, { systemId: 78n })).toBe('foreign');
  expect(stateOf(Buffer.alloc(100))).toBe('unknown');
});

it('believes the second page where it contradicts the first', () => {
  const bytes = Buffer.from(wal.bytes);
  bytes.writeBigUInt64LE(0x700_0000n, 8);
  expect(stateOf(bytes)).toBe('unknown');
  expect(stateOf(bytes.subarray(0, blockSize))).toBe('another');
});
