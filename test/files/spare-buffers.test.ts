import { expect, it } from 'vitest';
import { SpareBuffers } from '../../src/files/spare-buffers.js';

it('gives a buffer to one user at a time, and keeps no more than it may', () => {
  const buffers = new SpareBuffers(64, 1);
  const first = buffers.take();
  const second = buffers.take();
  expect([first.length, second.length]).toEqual([64, 64]);
  expect(second.buffer).not.toBe(first.buffer);
  buffers.giveBack(first);
  buffers.giveBack(second);
  expect(buffers.take()).toBe(first);
  expect(buffers.take()).not.toBe(second);
});
