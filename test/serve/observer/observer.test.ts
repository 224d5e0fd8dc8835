import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import type { WorkConfig } from '../../../src/serve/config/config.js';
import type { FromObserver, ToObserver } from '../../../src/serve/observer/messages.js';
import { type LaunchObserver, Observer } from '../../../src/serve/observer/observer.js';
import type { ArchiveStatus, LogEntry } from '../../../src/serve/status.js';

beforeEach(() =>
  vi.useFakeTimers({
    toFake: ['setTimeout', 'setInterval', 'clearTimeout', 'clearInterval', 'performance'],
  }),
);
afterEach(() => vi.useRealTimers());

const work = (name: string, directory = `/d/${name}`): WorkConfig => ({
  server: {
    ...{ name, connection: 'host=x', directory, ensureSlot: false, synchronous: false },
    compression: { method: 'none' },
  },
  ...{ rpo: 1000, stores: [], verify: {}, hooks: {} },
});
const archive = (more: Partial<ArchiveStatus> = {}): ArchiveStatus => ({
  ...{ readAt: '2026-11-28T12:00:00.000Z', segments: 1, bytes: 1, timelines: [], gaps: [] },
  ...{ backups: [], windows: [], places: [], besideWindows: [], ...more },
});

function scripted() {
  const children: {
    sent: ToObserver[];
    hear(message: FromObserver): void;
    end(how: string): void;
    killed: boolean;
  }[] = [];
  const log: LogEntry[] = [];
  const launch: LaunchObserver = (hear) => {
    let end = (_: string): void => {};
    const ended = new Promise<string>((resolve) => {
      end = resolve;
    });
    const child = { sent: [] as ToObserver[], hear, end, killed: false };
    children.push(child);
    return {
      ...{ pid: children.length, ended, send: (message) => void child.sent.push(message) },
      kill() {
        child.killed = true;
        // One that a disk holds does not end.
      },
    };
  };
  const observer = new Observer((entry) => void log.push(entry), launch);
  return { observer, children, log };
}

it('has one process, which is told of all servers, and again when they change', async () => {
  const { observer, children } = scripted();
  await observer.apply([work('a'), work('b')]);
  children[0]!.hear({ kind: 'ready' });
  await observer.apply([work('a'), work('b')]);
  await observer.apply([work('a')]);
  expect(children).toHaveLength(1);
  expect(children[0]!.sent.map(({ servers }) => servers.map((s) => s.server.name))).toEqual([
    ['a', 'b'],
    ['a'],
  ]);
});

it('has what was told last, and nothing of another directory, nor of who is not asked for', async () => {
  const { observer, children } = scripted();
  await observer.apply([work('a'), work('b')]);
  children[0]!.hear({
    kind: 'archives',
    archives: { a: archive(), b: archive({ segments: 7 }), evil: archive() },
  });
  expect(observer.status('b')).toEqual({ archive: archive({ segments: 7 }) });
  expect(observer.status('evil')).toEqual({});
  await observer.apply([work('a'), work('b', '/other')]);
  expect(observer.status('b')).toEqual({});
  expect(observer.status('a').archive?.segments).toBe(1);
});

it('replaces one that died, later each time, and says meanwhile since when nothing was read', async () => {
  const { observer, children, log } = scripted();
  await observer.apply([work('a')]);
  children[0]!.hear({ kind: 'archives', archives: { a: archive() } });
  children[0]!.end('SIGKILL');
  await vi.advanceTimersByTimeAsync(0);
  expect(log).toMatchObject([{ level: 'error', event: 'observer' }]);
  expect(observer.status('a').archive).toMatchObject({
    segments: 1,
    error: { message: expect.stringMatching(/was not read since 2026.*SIGKILL/) },
  });
  await vi.advanceTimersByTimeAsync(1000);
  expect(children).toHaveLength(2);
  children[1]!.end('exit code 1');
  await vi.advanceTimersByTimeAsync(1999);
  expect(children).toHaveLength(2);
  await vi.advanceTimersByTimeAsync(1);
  expect(children).toHaveLength(3);
  children[2]!.hear({ kind: 'archives', archives: { a: archive() } });
  expect(observer.status('a').archive?.error).toBeUndefined();
});

it('replaces one that is not heard of, though its disk keeps it, and does not listen to it any more', async () => {
  const { observer, children } = scripted();
  await observer.apply([work('a')]);
  for (let second = 0; second < 30; second++) {
    children[0]!.hear({ kind: 'alive' });
    await vi.advanceTimersByTimeAsync(1000);
  }
  expect(children).toHaveLength(1);
  await vi.advanceTimersByTimeAsync(13_000);
  expect(children[0]!.killed).toBe(true);
  expect(children).toHaveLength(2);
  children[0]!.hear({ kind: 'archives', archives: { a: archive({ segments: 99 }) } });
  const { readAt, segments } = observer.status('a').archive ?? {};
  expect([readAt, segments]).toEqual([undefined, 0]);
});

it('says of an archive that no process ever told of that it was not read', async () => {
  const { observer, children } = scripted();
  await observer.apply([work('a')]);
  children[0]!.end('exit code 1');
  await vi.advanceTimersByTimeAsync(0);
  expect(observer.status('a').archive).toMatchObject({
    ...{ segments: 0, gaps: [], windows: [] },
    error: {
      message:
        'the archive was not read: the process that looks at archives ended with exit code 1',
    },
  });
  await vi.advanceTimersByTimeAsync(1000);
  children[1]!.hear({ kind: 'archives', archives: { a: archive() } });
  expect(observer.status('a')).toEqual({ archive: archive() });
});

it('ends with its process, and not with one that a disk keeps', async () => {
  const { observer, children } = scripted();
  await observer.apply([work('a')]);
  const ending = observer.end();
  expect(children[0]!.killed).toBe(true);
  await vi.advanceTimersByTimeAsync(2000);
  await ending;
  await vi.advanceTimersByTimeAsync(120_000);
  expect(children).toHaveLength(1);
});
