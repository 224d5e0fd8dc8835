import { afterEach, expect, it, vi } from 'vitest';
import type { FromReceiver } from '../../src/serve/receiver/messages.js';
import { Reporter } from '../../src/serve/reporter.js';

import type { ReceiverSnapshot } from '../../src/serve/status.js';

const BEGIN: ReceiverSnapshot = { state: 'connecting', segments: 0, connections: 0 };
afterEach(() => void vi.useRealTimers());

function started() {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'performance'] });
  const messages: FromReceiver[] = [];
  const waiting: (() => void)[] = [];
  const reporter = new Reporter<ReceiverSnapshot>(BEGIN, (message, sent) => {
    messages.push(message);
    waiting.push(sent);
  });
  return { messages, waiting, reporter };
}

const line = (message: string) => ({ level: 'info' as const, event: 'x', message });

it('sends at most four messages a second, and one a second without news', () => {
  const { messages, waiting, reporter } = started();
  for (let i = 0; i < 100; i += 1) {
    reporter.change({ segments: i });
    vi.advanceTimersByTime(10);
    for (const sent of waiting.splice(0)) sent();
  }
  expect(messages).toHaveLength(4);
  messages.length = 0;
  for (let i = 0; i < 100; i += 1) {
    vi.advanceTimersByTime(100);
    for (const sent of waiting.splice(0)) sent();
  }
  expect(messages.length).toBeGreaterThanOrEqual(9);
  expect(messages.length).toBeLessThanOrEqual(11);
});

it('has one message on its way, and a bounded log, while nobody takes them', () => {
  const { messages, waiting, reporter } = started();
  for (let i = 0; i < 5000; i += 1) {
    reporter.log(line(`${i}`));
    vi.advanceTimersByTime(50);
  }
  expect(messages).toHaveLength(1);
  waiting.pop()?.();
  vi.advanceTimersByTime(250);
  expect(messages).toHaveLength(2);
  const [first, second] = messages;
  if (first?.kind !== 'news' || second?.kind !== 'news') throw new Error('no news');
  expect(second.log).toHaveLength(200);
  expect(second.log.at(-1)?.message).toBe('4999');
  expect(first.log.length + second.log.length + second.lost).toBe(5000);
});

it('sends the rest at its end, whatever is on its way', () => {
  const { messages, reporter } = started();
  vi.advanceTimersByTime(250);
  reporter.log(line('last'));
  const error = { code: 'WK_GAP', message: 'gone' };
  reporter.end(error, () => {});
  const { snapshot } = reporter;
  expect(messages.at(-1)).toEqual({ kind: 'end', snapshot, log: [line('last')], error });
});
