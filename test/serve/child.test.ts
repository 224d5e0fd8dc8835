import { EventEmitter } from 'node:events';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { launch } from '../../src/serve/child.js';

/** A process as Node.js shows it. */
class Played extends EventEmitter {
  readonly pid = 1;
  connected = true;
  readonly sent: unknown[] = [];
  readonly signals: string[] = [];
  isAlone = false;
  send = (message: unknown) => void this.sent.push(message);
  kill = (name: string) => void this.signals.push(name);
  disconnect(): void {
    this.connected = false;
  }
  unref(): void {
    this.isAlone = true;
  }
}

let played: Played;
vi.mock('node:child_process', () => ({ fork: () => played }));
vi.mock('../../src/package.js', () => ({ packageFile: () => '/program' }));

beforeEach(() => {
  vi.useFakeTimers();
  played = new Played();
});
afterEach(() => {
  vi.useRealTimers();
});

const begun = () => {
  const child = launch({ file: 'x', grace: 30_000 }, { kind: 'start' }, () => {});
  played.emit('message', { kind: 'ready' });
  return child;
};

it('asks a process to end, and kills one that does not', async () => {
  const child = begun();
  child.stop();
  expect(played.sent).toEqual([{ kind: 'start' }, { kind: 'stop' }]);
  await vi.advanceTimersByTimeAsync(29_000);
  expect(played.signals).toEqual([]);
  await vi.advanceTimersByTimeAsync(2000);
  expect(played.signals).toEqual(['SIGKILL']);
  played.emit('exit', null, 'SIGKILL');
  expect(await child.ended).toEqual({ how: 'SIGKILL' });
  expect(vi.getTimerCount()).toBe(0);
});

it('waits for none for ever that cannot be killed', async () => {
  const child = begun();
  child.stop();
  await vi.advanceTimersByTimeAsync(36_000);
  expect(await child.ended).toEqual({ how: 'SIGKILL', isLeft: true });
  // Nothing of it keeps this process.
  expect({ connected: played.connected, isAlone: played.isAlone }).toEqual({
    ...{ connected: false, isAlone: true },
  });
  expect(vi.getTimerCount()).toBe(0);
});
