import { expect, it } from 'vitest';
import { SYNC_BOUNDS, SyncTimes } from '../../../src/receive/target/sync-times.js';

it('counts in the bucket whose bound is not passed', () => {
  const times = new SyncTimes();
  for (const seconds of SYNC_BOUNDS) times.note(seconds * 1000);
  expect(times.counts).toEqual([...SYNC_BOUNDS.map(() => 1), 0]);
  times.note(0);
  times.note(1e6);
  times.note(0.6);
  expect(times.counts.slice(0, 2)).toEqual([2, 2]);
  expect(times.counts.at(-1)).toBe(1);
  const all = SYNC_BOUNDS.reduce((sum, bound) => sum + bound * 1000, 0);
  expect(times.milliseconds).toBeCloseTo(all + 1e6 + 0.6);
});

it('has bounds that rise', () => {
  expect([...SYNC_BOUNDS].sort((a, b) => a - b)).toEqual(SYNC_BOUNDS);
});
