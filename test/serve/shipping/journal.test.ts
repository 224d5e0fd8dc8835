import { expect, it } from 'vitest';
import { StoreUncertainError } from '../../../src/errors.js';
import { parseLsn } from '../../../src/lsn.js';
import { Answering, StorePoint, storeSnapshot } from '../../../src/serve/shipping/journal.js';
import type { PlaceStatus, ShipperStatus } from '../../../src/ship/options.js';

const placeOf = (more: Partial<PlaceStatus> = {}): PlaceStatus => ({
  ...{ place: 's3://b', segments: 0, bytes: 0, seconds: 0 },
  ...{ reached: true, state: 'ok', held: [] },
  ...more,
});
const statusOf = (place: Partial<PlaceStatus>, more: Partial<ShipperStatus> = {}) => ({
  ...{ lookedAge: 100, complete: 4, places: [placeOf(place)] },
  ...more,
});

function ageOf(point: StorePoint, status: ShipperStatus, now: number): number | undefined {
  point.look(status, now);
  return point.age(now);
}

it('knows of nothing before the directory was looked at and the store reached', () => {
  const point = new StorePoint();
  expect(ageOf(point, { complete: 0, places: [] }, 1000)).toBeUndefined();
  expect(ageOf(point, statusOf({ reached: false }), 1000)).toBeUndefined();
  expect(ageOf(point, statusOf({ reached: true }), 1000)).toBe(0);
});

it('lacks nothing where nothing was completed yet, reached or not', () => {
  const point = new StorePoint();
  expect(ageOf(point, statusOf({ reached: false }, { complete: 0 }), 1000)).toBe(0);
});

it('is as old as the oldest segment that is not there', () => {
  const point = new StorePoint();
  expect(ageOf(point, statusOf({ segments: 2, seconds: 90 }), 1000)).toBe(90_000);
  // Also before the store was reached: what it answered for before is noted.
  expect(ageOf(point, statusOf({ segments: 2, seconds: 95, reached: false }), 6000)).toBe(95_000);
});

it('rises with the clock where the age of that segment is not known', () => {
  const point = new StorePoint();
  expect(ageOf(point, statusOf({ segments: 1 }), 1000)).toBeUndefined();
  expect(ageOf(point, statusOf({}), 2000)).toBe(0);
  expect(ageOf(point, statusOf({ segments: 1 }), 1900)).toBe(1);
  expect(ageOf(point, statusOf({ segments: 1 }), 7900)).toBe(6000);
});

it('is not believed to have all of a directory that was not looked at lately', () => {
  const point = new StorePoint();
  expect(ageOf(point, statusOf({}), 20_000)).toBe(0);
  expect(ageOf(point, statusOf({}, { lookedAge: 60_100 }), 80_000)).toBe(60_100);
});

it('is not believed to have all either where nobody could look at the shipper', () => {
  const point = new StorePoint();
  expect(point.age(500)).toBeUndefined();
  point.look(statusOf({}), 1000);
  expect(point.age(1500)).toBe(0);
  expect(point.age(21_000)).toBe(20_000);
  point.look(statusOf({ segments: 1, seconds: 30 }), 22_000);
  expect(point.age(23_000)).toBe(31_000);
});

it('says what a store is at', () => {
  const trouble = { code: 'WK_STORE_ACCESS', message: 'refused', hint: 'Look.', since: 'x' };
  const error = { code: 'WK_STORE_ACCESS', message: 'refused', hint: 'Look.' };
  const held = [{ name: '0'.repeat(24), code: 'WK_CORRUPT_WAL', message: 'damaged', since: 'x' }];
  const position = { timeline: 1, lsn: parseLsn('0/3000000') };
  expect(storeSnapshot(placeOf({ reached: false }))).toMatchObject({ state: 'starting' });
  expect(storeSnapshot(placeOf({ position, segments: 2, bytes: 32 }))).toEqual({
    ...{ state: 'shipping', queueSegments: 2, queueBytes: 32, shippedLsn: '0/3000000' },
  });
  const away = placeOf({ reached: false, state: 'retrying', trouble, held });
  expect(storeSnapshot(away)).toMatchObject({ state: 'away', error });
  // A store that still tries the same thing has told of nothing yet.
  expect(storeSnapshot(placeOf(), error)).toMatchObject({ state: 'away', error });
  expect(storeSnapshot(placeOf({ held }))).toMatchObject({
    ...{ state: 'held', error: { code: 'WK_CORRUPT_WAL', message: 'damaged' } },
  });
});

it('calls a store away that has failed for a while', () => {
  const answering = new Answering();
  const error = new StoreUncertainError('no answer');
  answering.failed(error, 1000);
  expect(answering.away(5000)).toBeUndefined();
  answering.failed(error, 5000);
  expect(answering.away(6000)).toBe(error);
  answering.succeeded();
  expect(answering.away(6000)).toBeUndefined();
  answering.failed(error, 7000);
  expect(answering.away(8000)).toBeUndefined();
});
