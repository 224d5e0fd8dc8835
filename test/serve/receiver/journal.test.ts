import { EventEmitter } from 'node:events';
import { afterEach, expect, it, vi } from 'vitest';
import { DiskFullError } from '../../../src/errors.js';
import { parseLsn } from '../../../src/lsn.js';
import type { ReceiverEvents } from '../../../src/receive/options.js';
import { reportReceiver } from '../../../src/serve/receiver/journal.js';
import { RecoveryPoint } from '../../../src/serve/receiver/recovery-point.js';
import { Reporter } from '../../../src/serve/reporter.js';
import type { ReceiverSnapshot } from '../../../src/serve/status.js';

afterEach(() => void vi.useRealTimers());

function reported() {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'performance'] });
  const log: string[] = [];
  const begin: ReceiverSnapshot = { state: 'connecting', segments: 0, connections: 0 };
  const reporter = new Reporter(begin, (message, sent) => {
    if (message.kind === 'news') log.push(...message.log.map(({ event }) => event));
    sent();
  });
  const receiver = new EventEmitter<ReceiverEvents>();
  reportReceiver(receiver, reporter, new RecoveryPoint(8000));
  const connect = (end: string): void => {
    receiver.emit('connect', {
      ...{ host: 'db', port: 5432, serverVersion: 180000, systemId: 1n, timeline: 1 },
      flushLsn: parseLsn(end),
    } as ReceiverEvents['connect'][0]);
  };
  const at = (lsn: string): void => {
    const position = parseLsn(lsn);
    receiver.emit('progress', {
      ...{ received: position, written: position, flushed: position, serverEnd: position },
      timeline: 1,
    } as ReceiverEvents['progress'][0]);
  };
  const full = (): void => {
    const error = new DiskFullError('could not write: No space left on device', { path: '/wal' });
    receiver.emit('disconnect', { error, retryIn: 1000 } as ReceiverEvents['disconnect'][0]);
  };
  return { log, reporter, connect, at, full };
}

it('says how much is not here while nothing can be stored, and says it once a minute', () => {
  const { log, reporter, connect, at, full } = reported();
  connect('0/1000000');
  at('0/1000000');
  for (let minute = 0; minute < 3; minute += 1) {
    for (let second = 0; second < 60; second += 2) {
      full();
      connect(`0/${(0x2000000 + minute).toString(16)}`);
      vi.advanceTimersByTime(2000);
    }
  }
  expect(reporter.snapshot).toMatchObject({
    ...{ state: 'disconnected', connections: 91, error: { code: 'WK_DISK_FULL' } },
    position: { flushed: '0/1000000', serverEnd: '0/2000002' },
  });
  // The first connection, then three times that it was lost and made.
  expect(log.filter((event) => event === 'disconnect')).toHaveLength(3);
  expect(log.filter((event) => event === 'connect')).toHaveLength(4);
});

it('tells of each connection that brought something', () => {
  const { log, connect, at, full } = reported();
  for (let n = 0; n < 5; n += 1) {
    connect('0/1000000');
    at('0/1000000');
    full();
    vi.advanceTimersByTime(2000);
  }
  expect(log.filter((event) => event === 'connect')).toHaveLength(5);
  expect(log.filter((event) => event === 'disconnect')).toHaveLength(5);
});

it('takes an end that goes back for what it was', () => {
  const { reporter, connect, at } = reported();
  connect('0/3000000');
  at('0/3000000');
  connect('0/2000000');
  expect(reporter.snapshot.position?.serverEnd).toBe('0/3000000');
});
