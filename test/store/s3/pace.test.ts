import { describe, expect, it } from 'vitest';
import { Pace } from '../../../src/store/s3/pace.js';
import { waitFor } from '../../support/wait.js';

const never = new AbortController().signal;

describe('requests under way at once', () => {
  it('are no more than the limit, in the order they came', async () => {
    const pace = new Pace(2);
    const leave = [await pace.enter(never), await pace.enter(never)];
    const order: number[] = [];
    const waiting = [1, 2, 3].map((n) =>
      pace.enter(never).then((done) => {
        order.push(n);
        return done;
      }),
    );
    leave[0]?.('good');
    const done = await waiting[0];
    expect(order).toEqual([1]);
    done?.('good');
    leave[1]?.('good');
    await waiting[2];
    expect(order).toEqual([1, 2, 3]);
  });

  it('halve when it is too much, once for all that were sent before', async () => {
    const pace = new Pace(16);
    const leave = await Promise.all(Array.from({ length: 16 }, () => pace.enter(never)));
    for (const done of leave) done('slow');
    expect(pace.limit).toBe(8);
    for (let limit = 8; limit > 1; limit /= 2) {
      (await pace.enter(never))('slow');
      expect(pace.limit).toBe(limit / 2);
    }
    (await pace.enter(never))('slow');
    expect(pace.limit).toBe(1);
  });

  it('become one more with each round of good answers', async () => {
    const pace = new Pace(4);
    for (let i = 0; i < 2; i++) (await pace.enter(never))('slow');
    const limits: number[] = [];
    for (let i = 0; i < 8; i++) {
      (await pace.enter(never))('good');
      limits.push(pace.limit);
    }
    expect(limits).toEqual([2, 2, 3, 3, 3, 4, 4, 4]);
  });

  it('do not wait for one that was given up', async () => {
    const pace = new Pace(1);
    const leave = await pace.enter(never);
    const stop = new AbortController();
    const given = pace.enter(stop.signal);
    const next = pace.enter(never);
    stop.abort(new Error('stop'));
    await expect(given).rejects.toThrow('stop');
    leave('good');
    (await next)('good');
    let free = false;
    void pace.enter(never).then(() => {
      free = true;
    });
    await waitFor(() => free);
  });
});
