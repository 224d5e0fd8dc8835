import tty from 'node:tty';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { stopOnSignals } from '../../src/cli/signals.js';
import { captureOutput } from './run.js';

const exit = vi.spyOn(process, 'exit').mockImplementation((() => undefined) as never);
beforeEach(() => {
  vi.useFakeTimers();
  exit.mockClear();
});
afterEach(() => {
  vi.useRealTimers();
});

it.each([
  ['no terminal, as under nohup', () => false, 1],
  ['a terminal', (fd: number) => fd === 2, 0],
])('with %s', (_, isatty, ignoring) => {
  vi.spyOn(tty, 'isatty').mockImplementation(isatty);
  const before = process.listenerCount('SIGHUP');
  const { signal, release } = stopOnSignals(captureOutput().output);
  expect(process.listenerCount('SIGHUP')).toBe(before + ignoring);
  if (ignoring) process.emit('SIGHUP', 'SIGHUP');
  expect(signal.aborted).toBe(false);
  release();
  expect(process.listenerCount('SIGHUP')).toBe(before);
});

it('stops gracefully on the first signal and at once on a later SIGINT', () => {
  const { output, stderr } = captureOutput();
  const { signal, release } = stopOnSignals(output);
  process.emit('SIGINT', 'SIGINT');
  expect(signal.aborted).toBe(true);
  vi.advanceTimersByTime(50);
  process.emit('SIGINT', 'SIGINT');
  vi.advanceTimersByTime(5000);
  process.emit('SIGTERM', 'SIGTERM');
  expect(exit).not.toHaveBeenCalled();
  process.emit('SIGINT', 'SIGINT');
  expect(exit).toHaveBeenCalledWith(1);
  expect(stderr.text).toBe(
    'pg_receivewal: error: interrupted again while stopping, exiting at once\n',
  );
  release();
});
