import { expect, it, vi } from 'vitest';
import type { ReplicationConnection } from '../../src/connection/connection.js';
import type { Lsn } from '../../src/lsn.js';
import { StreamSession } from '../../src/receive/stream.js';
import type { WalTarget } from '../../src/receive/target/wal-target.js';

it('tells of a sync, and of what the server has, when nothing more is received', async () => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
  const positions = { start: 0n as Lsn, written: 0, flushed: 0, lsn: (at: number) => BigInt(at) };
  const target = {
    ...{ positions, hasRoom: true, start() {}, accept() {}, flush: () => false, tick() {} },
    ...{ stop() {}, idle: async () => {}, close: async () => {}, abandon: async () => {} },
  };
  const end = { kind: 'ended' as const };
  const stream = { sendStatus() {}, pause() {}, resume() {}, finish: async () => end };
  const connection = { startReplication: async () => stream, destroy() {}, lastReceivedAt: 0 };
  const told: unknown[] = [];
  const session = new StreamSession({
    ...{ timeline: 1, synchronous: true, reportFlush: true, applyIsFlush: false },
    ...{ statusInterval: 0, receiveTimeout: 0 },
    connection: connection as unknown as ReplicationConnection,
    target: target as unknown as WalTarget,
    onProgress: (...at) => told.push([...at, positions.flushed]),
  });
  const stop = new AbortController();
  const running = session.run(stop.signal, () => {});
  await vi.waitFor(() => expect(told).toEqual([[0n, 0n, 0]]));
  session.onWalHeader(0n, 10n);
  session.onWalBytes(Buffer.alloc(10));
  positions.written = 10;
  vi.advanceTimersByTime(250);
  positions.flushed = 10;
  vi.advanceTimersByTime(250);
  session.onKeepalive(30n, 0n, false);
  vi.advanceTimersByTime(1000);
  stop.abort();
  await running;
  vi.useRealTimers();
  expect(told.slice(1)).toEqual([
    [10n, 10n, 0],
    [10n, 10n, 10],
    [10n, 30n, 10],
  ]);
});
