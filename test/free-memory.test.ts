import { expect, test } from 'vitest';
import { freeMemory } from '../src/free-memory.js';

const SIZE = 1024 * 1024;

test('memory that is freed is nobody’s any more', () => {
  const bytes = Buffer.alloc(SIZE, 1);
  const { buffer } = bytes;
  freeMemory(bytes);
  expect(buffer.byteLength).toBe(0);
  expect(bytes).toHaveLength(0);
});

test('what one decompresses in one step is freed, with the byte behind it', () => {
  const { buffer } = Buffer.allocUnsafeSlow(SIZE + 1);
  freeMemory(new Uint8Array(buffer, 0, SIZE));
  expect(buffer.byteLength).toBe(0);
});

test.each([
  ['a part of it', () => new Uint8Array(new ArrayBuffer(2 * SIZE), 0, SIZE)],
  ['its end', () => new Uint8Array(new ArrayBuffer(SIZE + 1), 1)],
  ['little', () => Buffer.from('of the pool that all share')],
  ['shared memory', () => new Uint8Array(new SharedArrayBuffer(SIZE))],
])('%s is left as it is', (_, make) => {
  const bytes = make().fill(7);
  const { length } = bytes;
  freeMemory(bytes);
  expect(bytes).toHaveLength(length);
  expect(bytes.every((byte) => byte === 7)).toBe(true);
});
