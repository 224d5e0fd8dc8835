import { expect, test, vi } from 'vitest';
import { RenewedCredentials } from '../../../../src/store/s3/credentials/renewed.js';
import type { Credentials } from '../../../../src/store/s3/credentials/source.js';

const MINUTE = 60_000;

/** An origin whose answers come when the test says, under a clock that it moves. */
function setUp() {
  const state = { now: 0, asked: 0 };
  const waiting: { resolve(c: Credentials): void; reject(e: Error): void }[] = [];
  const source = new RenewedCredentials(
    () => {
      state.asked += 1;
      return new Promise((resolve, reject) => waiting.push({ resolve, reject }));
    },
    () => state.now,
  );
  const answer = (id: string, minutes?: number) =>
    waiting.shift()?.resolve({
      ...{ accessKeyId: id, secretAccessKey: 's' },
      ...(minutes !== undefined && { expiration: new Date(minutes * MINUTE) }),
    });
  const fail = () => waiting.shift()?.reject(new Error('no answer'));
  const id = async (signal?: AbortSignal) => (await source.get(signal)).accessKeyId;
  return { state, source, answer, fail, id };
}

test('many who ask at once ask their origin once', async () => {
  const { state, answer, id } = setUp();
  const all = Promise.all(Array.from({ length: 32 }, () => id()));
  answer('A', 60);
  expect(new Set(await all)).toEqual(new Set(['A']));
  expect(state.asked).toBe(1);
});

test('ones without an end are kept until they are refused', async () => {
  const { state, source, answer, id } = setUp();
  const first = id();
  answer('A');
  await first;
  state.now = 1e12;
  expect(await id()).toBe('A');
  source.invalidate();
  const second = id();
  answer('B');
  expect(await second).toBe('B');
  expect(state.asked).toBe(2);
});

test('five minutes before their end they are renewed while they go on in use', async () => {
  const { state, answer, id } = setUp();
  const first = id();
  answer('A', 60);
  await first;
  state.now = 55 * MINUTE - 1;
  expect(await id()).toBe('A');
  expect(state.asked).toBe(1);
  state.now += 1;
  expect(await Promise.all([id(), id()])).toEqual(['A', 'A']);
  expect(state.asked).toBe(2);
  answer('B', 120);
  await vi.waitFor(async () => expect(await id()).toBe('B'));
  expect(state.asked).toBe(2);
});

test('a renewal that fails leaves them in use to their end, and is tried again', async () => {
  const { state, answer, fail, id } = setUp();
  const first = id();
  answer('A', 60);
  await first;
  state.now = 56 * MINUTE;
  expect(await id()).toBe('A');
  fail();
  // Not at once: an origin in trouble is not asked with every request.
  await vi.waitFor(async () => {
    expect(await id()).toBe('A');
    expect(state.asked).toBe(2);
  });
  state.now = 57 * MINUTE;
  expect(await id()).toBe('A');
  expect(state.asked).toBe(3);
  fail();
  await new Promise(setImmediate);
  state.now = 60 * MINUTE;
  const over = id();
  expect(state.asked).toBe(4);
  fail();
  await expect(over).rejects.toThrow('no answer');
  const again = id();
  answer('B', 120);
  expect(await again).toBe('B');
});

test('short-lived ones are renewed at half their time, not with every request', async () => {
  const { state, answer, id } = setUp();
  const first = id();
  answer('A', 4);
  await first;
  state.now = 2 * MINUTE - 1;
  expect(await id()).toBe('A');
  expect(state.asked).toBe(1);
  state.now = 2 * MINUTE;
  await id();
  expect(state.asked).toBe(2);
});

test('ones that are over by our clock are used: the store decides', async () => {
  const { state, answer, id } = setUp();
  state.now = 100 * MINUTE;
  const first = id();
  answer('A', 60);
  expect(await first).toBe('A');
  expect(await id()).toBe('A');
  expect(state.asked).toBe(1);
  state.now += MINUTE;
  const second = id();
  answer('B', 200);
  expect(await second).toBe('B');
});

test('a refusal of earlier ones does not cost the renewed', async () => {
  const { state, source, answer, id } = setUp();
  const first = source.get();
  answer('A', 60);
  const refused = await first;
  source.invalidate(refused);
  const second = id();
  answer('B', 60);
  await second;
  source.invalidate(refused);
  expect(await id()).toBe('B');
  expect(state.asked).toBe(2);
});

test('one who gives up leaves the question to the others', async () => {
  const { state, answer, id } = setUp();
  const abort = new AbortController();
  const [gone, stays] = [id(abort.signal), id()];
  abort.abort(new Error('given up'));
  await expect(gone).rejects.toThrow('given up');
  answer('A', 60);
  expect(await stays).toBe('A');
  await expect(id(abort.signal)).rejects.toThrow('given up');
  expect(state.asked).toBe(1);
});

test('a question that failed is no answer for the next', async () => {
  const { answer, fail, id } = setUp();
  const first = id();
  fail();
  await expect(first).rejects.toThrow('no answer');
  const second = id();
  answer('A');
  expect(await second).toBe('A');
});

test('ones that are only doubted go on in use where the origin has no others', async () => {
  const { state, source, answer, fail, id } = setUp();
  const first = id();
  answer('A', 60);
  await first;
  source.invalidate(await source.get(), false);
  const doubted = [id(), id()];
  fail();
  expect(await Promise.all(doubted)).toEqual(['A', 'A']);
  // And the origin is not asked again at once.
  expect(await id()).toBe('A');
  expect(state.asked).toBe(2);
  source.invalidate(await source.get(), false);
  const renewed = id();
  answer('B', 60);
  expect(await renewed).toBe('B');
  source.invalidate(await source.get());
  const refused = id();
  fail();
  await expect(refused).rejects.toThrow('no answer');
});
