import { expect, it } from 'vitest';
import { parseLsn } from '../../../src/lsn.js';
import { PacedTarget } from '../../../src/receive/target/paced-target.js';
import { SyncTimes } from '../../../src/receive/target/sync-times.js';
import { type WalWriter, WriterPositions } from '../../../src/receive/target/wal-writer.js';

const START = parseLsn('0/3000000');

/** A writer that counts `extra` bytes more than it gets. */
function makeWriter(extra = 0) {
  const positions = new WriterPositions(START);
  const ends: string[] = [];
  const writer: WalWriter = {
    positions,
    pending: 0,
    writeSync: (chunks) => {
      const length = chunks.reduce((sum, chunk) => sum + chunk.length, 0);
      positions.wrote(positions.written + length + extra);
    },
    write: async () => {},
    syncSync: () => positions.synced(positions.written),
    sync: async () => {},
    close: async () => void ends.push('closed'),
  };
  return { writer, ends, positions };
}

it('tells of what its writer has, and of nothing else', () => {
  const { writer } = makeWriter();
  const target = new PacedTarget({ writer, synchronous: true, writeReport: 'sync' });
  const news: unknown[] = [];
  target.start({
    onNews: (what) => news.push([what, target.positions.written, target.positions.flushed]),
    onRoom: () => {},
    onLost: (e) => news.push(e),
  });
  target.accept([Buffer.alloc(10), Buffer.alloc(5)], 15, performance.now());
  expect(news).toEqual([['flushed', 15, 15]]);
  expect(target.positions.lsn(15)).toBe(START + 15n);
});

it('believes no writer that has more than it was given', () => {
  const { writer } = makeWriter(1);
  const target = new PacedTarget({ writer, synchronous: true, writeReport: 'sync' });
  const accept = () => target.accept([Buffer.alloc(10)], 10, performance.now());
  expect(accept).toThrow(new RangeError('written 11 of 10'));
  expect(target.positions.flushed).toBe(0);
});

it('holds nothing that a failure would have to end, unless it is told so', async () => {
  const { writer, ends } = makeWriter();
  const options = { writer, synchronous: true, writeReport: 'sync' as const };
  await new PacedTarget(options).abandon();
  expect(ends).toEqual([]);
  await new PacedTarget({ ...options, abandon: async () => void ends.push('abandoned') }).abandon();
  expect(ends).toEqual(['abandoned']);
  await new PacedTarget(options).close();
  expect(ends).toEqual(['abandoned', 'closed']);
});

it('syncs at times what no commit waits for, and counts how long that took', async () => {
  const { writer, positions } = makeWriter();
  let syncs = 0;
  writer.sync = async () => {
    syncs += 1;
    positions.synced(positions.written);
  };
  const syncTimes = new SyncTimes();
  const options = { writer, synchronous: false, writeReport: 'sync' as const, syncTimes };
  const rare = new PacedTarget(options);
  rare.accept([Buffer.alloc(10)], 10, performance.now());
  rare.tick(performance.now() + 3_600_000, true);
  await rare.idle();
  expect(syncs).toBe(0);
  const target = new PacedTarget({ ...options, syncInterval: 5000 });
  const began = performance.now() + 5000;
  // While the stream is held up the disk is at its limit.
  target.tick(began, false);
  target.tick(began, true);
  await target.idle();
  expect({ syncs, flushed: positions.flushed }).toEqual({ syncs: 1, flushed: 10 });
  // There is nothing new.
  target.tick(began + 3_600_000, true);
  await target.idle();
  positions.wrote(20);
  target.tick(performance.now() + 1000, true);
  await target.idle();
  expect(syncs).toBe(1);
  expect(syncTimes.counts.reduce((sum, count) => sum + count)).toBe(1);
});
