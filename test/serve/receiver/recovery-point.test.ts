import { expect, it } from 'vitest';
import { RecoveryPoint } from '../../../src/serve/receiver/recovery-point.js';

const FRESH = 10_000;

it('is not known before all was durable once', () => {
  const point = new RecoveryPoint(FRESH);
  expect(point.age(100, undefined)).toBeUndefined();
  point.note(50n, 100n, 1000);
  expect(point.age(2000, 2000)).toBeUndefined();
  point.note(100n, 100n, 3000);
  expect(point.age(3000, 3000)).toBe(0);
});

it('stays 0 on an idle server that is heard, and rises with the clock on one that is not', () => {
  const point = new RecoveryPoint(FRESH);
  point.note(100n, 100n, 0);
  for (let now = 0; now < 600_000; now += 5000) expect(point.age(now, now - 4000)).toBe(0);
  // The last word came at 600 s; the line is cut.
  expect(point.age(609_000, 600_000)).toBe(0);
  expect(point.age(611_000, 600_000)).toBe(11_000);
  expect(point.age(660_000, 600_000)).toBe(60_000);
  // And without a stream.
  expect(point.age(700_000, undefined)).toBe(100_000);
});

it('rises at once without a stream, however short ago it was', () => {
  const point = new RecoveryPoint(FRESH);
  point.note(100n, 100n, 0);
  expect(point.age(1000, 1000)).toBe(0);
  expect(point.age(1001, undefined)).toBe(1);
  point.restart();
  expect(point.age(5000, 5000)).toBe(4000);
  point.note(100n, 200n, 6000);
  expect(point.age(6000, 6000)).toBe(5000);
  point.note(200n, 200n, 6500);
  expect(point.age(6500, 6500)).toBe(0);
});

it('is the age of the oldest WAL that is not durable, under load', () => {
  const point = new RecoveryPoint(FRESH);
  // Always 200 ms behind.
  for (let now = 250; now < 60_000; now += 250) {
    point.note(BigInt(Math.max(0, now - 200)), BigInt(now), now);
    if (now > 1000) expect(point.age(now, now)).toBe(250);
  }
});

it('waits for what the server had at first, in a long catch-up', () => {
  const point = new RecoveryPoint(FRESH);
  for (let now = 0; now < 900_000; now += 250) {
    point.note(BigInt(now), BigInt(2_000_000 + now), now);
    expect(point.age(now, now)).toBeUndefined();
  }
  point.note(2_000_100n, 2_900_000n, 900_000);
  expect(point.age(900_000, 900_000)).toBeGreaterThan(890_000);
});

it('holds few samples, and is never better for that than it should be', () => {
  const point = new RecoveryPoint(FRESH);
  point.note(0n, 0n, 0);
  for (let now = 1; now < 10_000; now += 1) point.note(0n, BigInt(now), now);
  for (let flushed = 1; flushed < 9999; flushed += 77) {
    point.note(BigInt(flushed), 9999n, 10_000);
    expect(point.age(10_000, 10_000)).toBeGreaterThanOrEqual(10_000 - flushed);
  }
  point.note(9999n, 9999n, 10_000);
  expect(point.age(10_000, 10_000)).toBe(0);
});
