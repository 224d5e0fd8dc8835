import { EventEmitter } from 'node:events';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { formatSeconds, reportEvents } from '../../src/cli/report.js';
import { ConnectionError } from '../../src/errors.js';
import { toLsn } from '../../src/lsn.js';
import type { ReceiverEvents } from '../../src/receive/options.js';
import { captureOutput } from './run.js';

const lsn = (n: bigint) => toLsn(n);

function setUp(options: { verbose?: boolean; progress?: boolean } = {}, isTTY = false) {
  const receiver = new EventEmitter<ReceiverEvents>();
  const { output, stderr } = captureOutput('pg_receivewal', {}, isTTY);
  const report = reportEvents(receiver, output, { verbose: false, progress: false, ...options });
  const lines = () =>
    stderr.text
      .split('\n')
      .slice(0, -1)
      .map((line) => line.replace(/^pg_receivewal: /, ''));
  return { receiver, report, lines, stderr };
}

function emitAll(receiver: EventEmitter<ReceiverEvents>) {
  receiver.emit('start', { lsn: lsn(0x5000000n), timeline: 1 });
  receiver.emit('segment', { lsn: lsn(0x1_0600_0000n), timeline: 1, path: '/d/F', size: 1 << 24 });
  receiver.emit('timeline', { timeline: 2, lsn: lsn(0x1_0612_abcdn) });
  receiver.emit('partial', { file: '000000010000000000000005.partial' });
  receiver.emit('stop', { lsn: lsn(0x7000001n), timeline: 2, reason: 'endpos' });
  receiver.emit('stop', { lsn: lsn(0x7000001n), timeline: 2, reason: 'signal' });
}

describe('reportEvents', () => {
  it('has the code of what ended a connection, but under the name of PostgreSQL’s tool', () => {
    const last = (program: 'walkeep' | 'pg_receivewal') => {
      const receiver = new EventEmitter<ReceiverEvents>();
      const { output, stderr } = captureOutput(program);
      reportEvents(receiver, output, { verbose: false, progress: false });
      receiver.emit('disconnect', { error: new ConnectionError('gone'), retryIn: 5000 });
      return stderr.text.split('\n').at(-2);
    };
    const text = 'disconnected; waiting 5 seconds to try again';
    expect(last('walkeep')).toBe(`walkeep: ${text} (WK_CONNECTION)`);
    expect(last('pg_receivewal')).toBe(`pg_receivewal: ${text}`);
  });

  it('prints pg_receivewal’s messages when verbose', () => {
    const { receiver, lines } = setUp({ verbose: true });
    emitAll(receiver);
    expect(lines()).toEqual([
      'starting log streaming at 0/5000000 (timeline 1)',
      'finished segment at 1/6000000 (timeline 1)',
      'switched to timeline 2 at 1/612ABCD',
      'not renaming "000000010000000000000005.partial", segment is not complete',
      'stopped log streaming at 0/7000001 (timeline 2)',
      'received interrupt signal, exiting',
    ]);
  });

  it('otherwise tells only of partial segments, warnings and lost connections', () => {
    const { receiver, report, lines } = setUp();
    emitAll(receiver);
    receiver.emit('warning', { code: 'x', message: 'old server', hint: 'upgrade' });
    const error = new ConnectionError('server closed the connection');
    receiver.emit('disconnect', { error, retryIn: 5000 });
    expect(lines()).toEqual([
      'not renaming "000000010000000000000005.partial", segment is not complete',
      'warning: old server',
      'hint: upgrade',
      'error: server closed the connection',
      'disconnected; waiting 5 seconds to try again',
    ]);
    expect(report.printed(error)).toBe(true);
    expect(report.printed(new ConnectionError('other'))).toBe(false);
  });

  it('tells an error that repeats ten times, and then once a minute', () => {
    vi.useFakeTimers();
    try {
      const { receiver, lines } = setUp();
      const refuse = (text: string) =>
        receiver.emit('disconnect', { error: new ConnectionError(text), retryIn: 5000 });
      for (let second = 0; second < 180; second += 5) {
        refuse('refused');
        vi.advanceTimersByTime(5000);
      }
      const told = () => lines().filter((line) => line.startsWith('error: '));
      expect(told()).toHaveLength(10 + 2);
      refuse('no route');
      refuse('refused');
      expect(told().slice(-2)).toEqual(['error: no route', 'error: refused']);
    } finally {
      vi.useRealTimers();
    }
  });

  it('names another server that it connects to, and no wait of 0 seconds', () => {
    const { receiver, lines } = setUp();
    const connect = (host: string, timeline: number) =>
      receiver.emit('connect', {
        ...{ host, port: 5432, serverVersion: 180000, systemId: 1n, timeline },
        flushLsn: toLsn(1n),
      });
    connect('db1', 1);
    receiver.emit('disconnect', { error: new ConnectionError('gone'), retryIn: 0 });
    connect('db1', 1);
    connect('db2', 2);
    expect(lines()).toEqual([
      'error: gone',
      'disconnected; trying again',
      'connected to another server: "db2", port 5432 (timeline 2)',
    ]);
  });

  it('announces no retry that will not be made', () => {
    const { receiver, lines } = setUp();
    receiver.emit('disconnect', { error: new ConnectionError('gone'), retryIn: undefined });
    expect(lines()).toEqual(['error: gone']);
  });

  describe('progress', () => {
    beforeEach(() => {
      vi.useFakeTimers();
    });
    afterEach(() => {
      vi.useRealTimers();
    });
    const positions = (received: bigint) => ({
      received: lsn(received),
      written: lsn(received),
      flushed: lsn(0x1000000n),
      serverEnd: lsn(0x3000000n),
      timeline: 1,
    });

    it('redraws one line on a terminal', () => {
      const { receiver, report, stderr } = setUp({ progress: true }, true);
      receiver.emit('progress', positions(0x2000000n));
      vi.advanceTimersByTime(500);
      expect(stderr.text).toContain('\r\x1b[K0/2000000 (timeline 1), flushed 0/1000000');
      expect(stderr.text).not.toContain('\n');
      report.end();
      expect(stderr.text.endsWith('\r\x1b[K')).toBe(true);
      expect(vi.getTimerCount()).toBe(0);
    });

    it('logs a line now and then elsewhere', () => {
      const { receiver, lines } = setUp({ progress: true });
      vi.advanceTimersByTime(10_000);
      expect(lines()).toEqual([]);
      receiver.emit('progress', positions(0x2000000n));
      vi.advanceTimersByTime(10_000);
      receiver.emit('segment', { lsn: lsn(0x2000000n), timeline: 1, path: 'F', size: 1 });
      receiver.emit('progress', positions(0x2000000n + 20_000_000n));
      vi.advanceTimersByTime(10_000);
      expect(lines()).toEqual([
        '0/2000000 (timeline 1), flushed 0/1000000, 0 B/s, lag 16.8 MB, 0 segments',
        '0/3312D00 (timeline 1), flushed 0/1000000, 2.0 MB/s, lag 0 B, 1 segment',
      ]);
    });
  });
});

describe('formatSeconds', () => {
  it.each([
    [5000, '5 seconds'],
    [1000, '1 second'],
    [1040, '1 second'],
    [300, '0.3 seconds'],
    [0, '0 seconds'],
  ])('%d ms is %s', (milliseconds, text) => {
    expect(formatSeconds(milliseconds)).toBe(text);
  });
});
