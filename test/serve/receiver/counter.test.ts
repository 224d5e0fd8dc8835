import { EventEmitter } from 'node:events';
import { expect, it } from 'vitest';
import { TimeoutError } from '../../../src/errors.js';
import type { Lsn } from '../../../src/lsn.js';
import type { ReceiverEvents } from '../../../src/receive/options.js';
import { Counter } from '../../../src/serve/receiver/counter.js';

function counting() {
  const receiver = new EventEmitter<ReceiverEvents>();
  const counter = new Counter();
  counter.follow(receiver);
  const progress = (at: bigint, timeline = 1) => {
    const received = at as Lsn;
    receiver.emit('progress', {
      ...{ received, written: received, flushed: received, serverEnd: received, timeline },
    });
  };
  return { receiver, counter, progress };
}

it('counts what came, also what came again', () => {
  const { receiver, counter, progress } = counting();
  receiver.emit('start', { lsn: 1000n as Lsn, timeline: 1 });
  progress(1000n);
  progress(1500n);
  progress(1700n);
  expect(counter.counts.receivedBytes).toBe(700);
  receiver.emit('start', { lsn: 1000n as Lsn, timeline: 1 });
  progress(1700n);
  expect(counter.counts.receivedBytes).toBe(1400);
  // On another timeline it may begin before.
  receiver.emit('timeline', { timeline: 2, lsn: 1700n as Lsn });
  progress(1600n, 2);
  progress(1800n, 2);
  expect(counter.counts.receivedBytes).toBe(1600);
});

it('counts why another connection was to be made, and what was left behind', () => {
  const { receiver, counter } = counting();
  const error = new TimeoutError('x');
  receiver.emit('disconnect', { error, retryIn: 0 });
  receiver.emit('disconnect', { error, retryIn: 500 });
  // None was made.
  receiver.emit('disconnect', { error, retryIn: undefined });
  receiver.emit('diverged', { timeline: 3, from: 10n as Lsn, to: 30n as Lsn, followed: 4 });
  expect(counter.counts).toEqual({
    ...{ receivedBytes: 0, reconnects: { [error.code]: 2 }, diverged: { 3: 20 } },
  });
});
