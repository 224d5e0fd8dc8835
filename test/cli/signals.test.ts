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
