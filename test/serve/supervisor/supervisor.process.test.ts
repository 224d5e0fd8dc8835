import { spawn } from 'node:child_process';
import { afterEach, expect, it } from 'vitest';
import type { ServerConfig } from '../../../src/serve/config/config.js';
import type { FromReceiver } from '../../../src/serve/receiver/messages.js';
import type { ReceiverCounts, ReceiverSnapshot } from '../../../src/serve/status.js';
import type { Start } from '../../../src/serve/supervisor/child.js';
import { Supervised } from '../../../src/serve/supervisor/supervised.js';
import { Supervisor } from '../../../src/serve/supervisor/supervisor.js';
import { type PlayedChild, playedStage } from '../../support/played-child.js';
import { signal } from '../../support/processes.js';
import { killAtEnd } from '../../support/scratch.js';
import { waitFor } from '../../support/wait.js';

const configOf = (name: string, more: Partial<ServerConfig> = {}): ServerConfig => ({
  ...{ name, connection: 'host=db', directory: `/${name}`, ensureSlot: false },
  ...{ synchronous: true, compression: { method: 'none' } },
  ...more,
});

type Played = PlayedChild<Start, FromReceiver>;

/** Processes of receivers, which a test plays. */
const stage = () => playedStage<Start, FromReceiver>();

const news = (state: ReceiverSnapshot['state']): FromReceiver => ({
  kind: 'news',
  snapshot: { state, segments: 0, connections: 1 },
  ...{ log: [], lost: 0 },
});

const open: { end(): Promise<void> }[] = [];
afterEach(async () => {
  for (const one of open.splice(0)) await one.end();
});

function supervised() {
  const played = stage();
  const server = new Supervised({ config: configOf('shop'), ...played });
  open.push(server);
  return { ...played, server };
}

const count = (children: Played[], n: number) =>
  waitFor(() => children.length === n, { what: `${n} receivers` });

it('begins another when one ends, later each time', async () => {
  const { children, log, server } = supervised();
  for (let n = 1; n <= 5; n += 1) {
    await count(children, n);
    children.at(-1)?.end({ how: 'SIGKILL' });
  }
  await count(children, 6);
  const waits = log.map(({ message }) => Number(/begins in ([\d.]+) s/.exec(message)?.[1]));
  expect(waits).toHaveLength(5);
  waits.forEach((wait, n) => {
    const ceiling = 0.1 * 2 ** n;
    expect(wait).toBeGreaterThanOrEqual(ceiling / 2 - 0.001);
    expect(wait).toBeLessThanOrEqual(ceiling + 0.001);
  });
  expect(server.status).toMatchObject({ restarts: 5, ended: { code: 'WK_PROCESS' } });
});

it('begins one that has streamed again within half a second, however often it ends', async () => {
  const { children, log } = supervised();
  for (let n = 1; n <= 6; n += 1) {
    await count(children, n);
    children.at(-1)?.say(news('streaming'));
    children.at(-1)?.end({ how: 'SIGKILL' });
  }
  await count(children, 7);
  for (const { message } of log) {
    expect(Number(/begins in ([\d.]+) s/.exec(message)?.[1])).toBeLessThanOrEqual(0.4);
  }
});

it.each(['WK_GAP', 'WK_WAL_REMOVED', 'WK_CORRUPT_WAL', 'WK_REWRITE', 'WK_SYSTEM_IDENTIFIER'])(
  'holds a server that ended with %s',
  async (code) => {
    const { children, log, server } = supervised();
    await count(children, 1);
    const error = { code, message: 'so it is', hint: 'Look.' };
    children[0]?.say({ kind: 'end', log: [], error });
    children[0]?.end({ how: 'exit code 1', error });
    await waitFor(() => server.status.state === 'held');
    expect(server.status.ended).toEqual(error);
    expect(log).toMatchObject([
      {
        level: 'error',
        event: 'held',
        server: 'shop',
        code,
        hint: expect.stringMatching(/^Look\./),
      },
    ]);
    server.resume({ acceptGap: true });
    await count(children, 2);
    expect(children.map(({ start }) => start.acceptGap)).toEqual([false, true]);
    // Of one that runs nobody knows the next gap.
    server.resume({ acceptGap: true });
    children[1]?.end({ how: 'SIGKILL' });
    await count(children, 3);
    expect(children[2]?.start.acceptGap).toBe(false);
  },
);

it('begins none while it is paused, and one at once when it is resumed', async () => {
  const { children, server } = supervised();
  await count(children, 1);
  children[0]?.say(news('streaming'));
  expect(server.status.state).toBe('streaming');
  await server.pause();
  expect(children[0]?.stopped).toBe(true);
  await waitFor(() => server.status.state === 'paused');
  server.resume();
  await count(children, 2);
  expect(server.status).toMatchObject({ state: 'starting', restarts: 0 });
});

it('ends while it waits to begin again', async () => {
  const { children, server } = supervised();
  for (let n = 1; n <= 6; n += 1) {
    await count(children, n);
    children.at(-1)?.end({ how: 'SIGKILL' });
  }
  await waitFor(() => server.status.state === 'restarting');
  await server.end();
  expect(children.length).toBeLessThanOrEqual(7);
});

it('ends a process that a signal stopped, and lets one live that is only silent', async () => {
  const { children, log, server } = supervised();
  const sleeper = spawn('sleep', ['600']);
  killAtEnd(sleeper);
  await count(children, 1);
  const [child] = children as [Played];
  child.pid = sleeper.pid;
  const before = performance.now();
  child.say(news('streaming'));
  await server.look(before + 9000);
  expect(log).toEqual([]);
  await server.look(performance.now() + 11_000);
  await server.look(performance.now() + 12_000);
  expect(log.map(({ event }) => event)).toEqual(['silent']);
  expect(server.status.silentSeconds).toBeDefined();
  expect(child.killed).toBe(false);
  child.say(news('streaming'));
  expect(log.map(({ event }) => event)).toEqual(['silent', 'heard']);
  expect(server.status.silentSeconds).toBeUndefined();
  signal(sleeper.pid as number, 'SIGSTOP');
  await waitFor(async () => {
    await server.look(performance.now() + 11_000);
    return child.killed;
  });
  await count(children, 2);
  sleeper.kill('SIGKILL');
});

it('touches only what changed, and begins nothing before all that changes has ended', async () => {
  const { children, launch, tell } = stage();
  const supervisor = new Supervisor(tell, launch);
  open.push(supervisor);
  await supervisor.apply([configOf('a'), configOf('b'), configOf('c')]);
  await count(children, 3);
  const next = [configOf('a'), configOf('b', { slot: 'x' }), configOf('d', { directory: '/c' })];
  const applied = supervisor.apply(next);
  expect(await applied).toEqual({
    ...{ started: ['d'], restarted: ['b'], stopped: ['c'], unchanged: ['a'] },
  });
  await count(children, 5);
  expect(children.map(({ stopped }) => stopped)).toEqual([false, true, true, false, false]);
  expect(supervisor.status().map(({ name }) => name)).toEqual(['a', 'b', 'd']);
  await supervisor.pause('b');
  await supervisor.apply([configOf('b', { slot: 'y' })]);
  await waitFor(() => supervisor.status('b')[0]?.state === 'paused');
  expect(() => supervisor.resume('bb')).toThrow('there is no server "bb"');
});

it('does what is asked while it is being changed', async () => {
  const { children, launch, tell } = stage();
  const supervisor = new Supervisor(tell, launch);
  open.push(supervisor);
  await supervisor.apply([configOf('a'), configOf('b')]);
  await count(children, 2);
  await supervisor.pause('b');
  const [a] = children as [Played];
  // It takes its time.
  a.stop = () => {};
  const applied = supervisor.apply([configOf('a', { slot: 'x' }), configOf('b', { slot: 'x' })]);
  const paused = supervisor.pause('a');
  supervisor.resume('b');
  a.end({ how: 'exit code 0' });
  await Promise.all([applied, paused]);
  await count(children, 3);
  expect(children[2]?.start.config.name).toBe('b');
  await waitFor(() => supervisor.status('a')[0]?.state === 'paused');
});

it('counts over all of its processes, and over another configuration', async () => {
  const { children, launch, tell } = stage();
  const supervisor = new Supervisor(tell, launch);
  open.push(supervisor);
  await supervisor.apply([configOf('shop')]);
  await count(children, 1);
  const counts = (n: number): ReceiverCounts => ({
    ...{ receivedBytes: n, refused: n, reconnects: { WK_TIMEOUT: n } },
    ...{ syncs: { bounds: [1], counts: [n, 0], seconds: n }, diverged: { [n]: n } },
  });
  const snapshot = (n: number): ReceiverSnapshot => ({
    ...{ state: 'streaming', segments: n, connections: n, counts: counts(n) },
  });
  children[0]?.say({ kind: 'news', snapshot: snapshot(1), log: [], lost: 0 });
  // The last word has what happened at the end.
  children[0]?.say({ kind: 'end', snapshot: snapshot(2), log: [] });
  children[0]?.end({ how: 'exit code 1' });
  await count(children, 2);
  const [before] = supervisor.status();
  expect(before).toMatchObject({ totals: { segments: 2, connections: 2 }, counts: counts(2) });
  children[1]?.say({ kind: 'news', snapshot: snapshot(3), log: [], lost: 0 });
  await supervisor.apply([configOf('shop', { directory: '/other' })]);
  await count(children, 3);
  children[2]?.say({ kind: 'news', snapshot: snapshot(1), log: [], lost: 0 });
  const [after] = supervisor.status();
  expect(after?.totals).toEqual({ segments: 6, connections: 6 });
  expect(after?.counts).toEqual({ ...counts(6), diverged: { 1: 1, 2: 2, 3: 3 } });
});
