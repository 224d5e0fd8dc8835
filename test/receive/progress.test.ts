import { afterEach, expect, it, vi } from 'vitest';
import type { ReplicationConnection } from '../../src/connection/connection.js';
import type { Lsn } from '../../src/lsn.js';
import type { StandbyStatus } from '../../src/protocol/status-reply.js';
import { type StreamOptions, StreamSession } from '../../src/receive/stream.js';
import type { WalTarget } from '../../src/receive/target/wal-target.js';

afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

/** A stream of a server that a test plays. */
async function streaming(options: Partial<StreamOptions>) {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
  let now = 0;
  vi.spyOn(performance, 'now').mockImplementation(() => now);
  const pass = (ms: number): void => {
    for (const end = now + ms; now < end; ) {
      now += 50;
      vi.advanceTimersByTime(50);
    }
  };
  const positions = { start: 0n as Lsn, written: 0, flushed: 0, lsn: (at: number) => BigInt(at) };
  const target = {
    ...{ positions, hasRoom: true, start() {}, accept() {}, flush: () => false, tick() {} },
    ...{ stop() {}, idle: async () => {}, close: async () => {}, abandon: async () => {} },
  };
  const replies: StandbyStatus[] = [];
  const stream = {
    ...{ sendStatus: (reply: StandbyStatus) => void replies.push(reply), pause() {}, resume() {} },
    finish: async () => ({ kind: 'ended' as const }),
  };
  const connection = { startReplication: async () => stream, destroy() {}, lastReceivedAt: 0 };
  const told: unknown[] = [];
  const session = new StreamSession({
    ...{ timeline: 1, synchronous: true, reportFlush: true, applyIsFlush: false },
    ...{ statusInterval: 0, receiveTimeout: 0 },
    connection: connection as unknown as ReplicationConnection,
    target: target as unknown as WalTarget,
    onProgress: (...at) => told.push([...at, positions.flushed]),
    ...options,
  });
  const stop = new AbortController();
  const running = session.run(stop.signal, () => {});
  await vi.waitFor(() => expect(told).toEqual([[0n, 0n, 0]]));
  return { session, positions, connection, replies, told, stop, running, pass };
}

it('tells of a sync, and of what the server has, when nothing more is received', async () => {
  const { session, positions, told, stop, running, pass } = await streaming({});
  session.onWalHeader(0n, 10n);
  session.onWalBytes(Buffer.alloc(10));
  positions.written = 10;
  pass(250);
  positions.flushed = 10;
  pass(250);
  session.onKeepalive(30n, 0n, false);
  pass(1000);
  stop.abort();
  await running;
  expect(told.slice(1)).toEqual([
    [10n, 10n, 0],
    [10n, 10n, 10],
    [10n, 30n, 10],
  ]);
});

it('asks a silent server early where it is to, and gives it up no sooner', async () => {
  const asked = (replies: StandbyStatus[]) => replies.filter((r) => r.replyRequested).length;
  const times = { receiveTimeout: 30_000, probeAfter: 5000 };
  const { connection, replies, stop, running, pass } = await streaming(times);
  connection.lastReceivedAt = performance.now();
  pass(4900);
  expect(asked(replies)).toBe(0);
  pass(500);
  expect(asked(replies)).toBe(1);
  // An answer, and silence again.
  connection.lastReceivedAt = performance.now();
  pass(5500);
  expect(asked(replies)).toBe(2);
  let error: unknown;
  running.catch((e) => {
    error = e;
  });
  pass(54_000);
  await Promise.resolve();
  expect(error).toBeUndefined();
  pass(1500);
  await expect(running).rejects.toThrow('nothing was received from the server');
  stop.abort();
});
