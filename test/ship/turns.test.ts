import { expect, test } from 'vitest';
import { Turns } from '../../src/ship/turns.js';

/** Something that goes on until it is told to end. */
function held() {
  let end = (): void => {};
  const done = new Promise<void>((resolve) => {
    end = resolve;
  });
  return { end, action: () => done };
}

test('so many at a time, in the order of their coming', async () => {
  const turns = new Turns(2);
  const begun: number[] = [];
  const ends: (() => void)[] = [];
  const all = [0, 1, 2, 3].map((i) => {
    const { end, action } = held();
    ends.push(end);
    return turns.take(() => {
      begun.push(i);
      return action();
    }, undefined);
  });
  await Promise.resolve();
  expect(begun).toEqual([0, 1]);
  ends[1]!();
  await all[1];
  await new Promise(setImmediate);
  expect(begun).toEqual([0, 1, 2]);
  for (const end of ends) end();
  await Promise.all(all);
  expect(begun).toEqual([0, 1, 2, 3]);
});

test('who gives up while it waits takes no turn, and what fails gives its own back', async () => {
  const turns = new Turns(1);
  const { end, action } = held();
  const first = turns.take(action, undefined);
  const abort = new AbortController();
  const second = turns.take(async () => 'never', abort.signal);
  const third = turns.take(() => Promise.reject(new Error('failed')), undefined);
  const fourth = turns.take(async () => 'done', undefined);
  abort.abort(new Error('given up'));
  await expect(second).rejects.toThrow('given up');
  end();
  await first;
  await expect(third).rejects.toThrow('failed');
  expect(await fourth).toBe('done');
  // At the same moment as its turn: that goes on to the next one.
  const other = held();
  const running = turns.take(other.action, undefined);
  const late = new AbortController();
  const lost = turns.take(async () => 'never', late.signal).catch(() => 'lost');
  other.end();
  late.abort(new Error('late'));
  await running;
  await lost;
  expect(await turns.take(async () => 'free', undefined)).toBe('free');
});
