import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { resolveSettings } from '../src/connection/conninfo/resolve.js';
import { abortableDelay, LONGEST_TIMER } from '../src/delay.js';
import { MemberSession } from '../src/server/member.js';
import { Changes } from '../src/ship/changes.js';

const settings = await resolveSettings(
  { conninfo: 'host=/nowhere connect_timeout=2147483647', fallbackApplicationName: 'x' },
  {},
);

beforeEach(() => void vi.useFakeTimers());
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

test.each<[string, (signal: AbortSignal) => Promise<unknown>]>([
  ['of a delay', (signal) => abortableDelay(2 ** 40, signal)],
  ['between looks of ship', (signal) => new Changes(undefined, 2 ** 40).next(signal)],
  ['for a member', (signal) => new MemberSession(settings, 's').observe(signal)],
])('a time longer than a timer takes is not none at all: %s', async (_, wait) => {
  const stop = new AbortController();
  const asked = vi.spyOn(globalThis, 'setTimeout');
  const waiting = wait(stop.signal).catch(() => {});
  expect(asked.mock.calls.map(([, ms]) => ms)).toContain(LONGEST_TIMER);
  expect(Math.max(...asked.mock.calls.map(([, ms]) => ms ?? 0))).toBe(LONGEST_TIMER);
  stop.abort();
  await waiting;
});

test('a delay ends at once when its signal aborts, also before it began', async () => {
  const stop = new AbortController();
  const waiting = abortableDelay(1000, stop.signal);
  stop.abort();
  await waiting;
  await abortableDelay(1000, stop.signal);
  expect(vi.getTimerCount()).toBe(0);
});
