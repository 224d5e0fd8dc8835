import { describe, expect, it } from 'vitest';
import { parseLsn } from '../../../src/lsn.js';
import { BulkStage } from '../../../src/receive/target/bulk-stage.js';
import { type WalWriter, WriterPositions } from '../../../src/receive/target/wal-writer.js';
import { WriteQueue } from '../../../src/receive/target/write-queue.js';

const SEGMENT = 1024 * 1024;
const BLOCK = SEGMENT / 8;
const MB = 1024 * 1024;

/** A writer whose writes end when the test says so. */
function setUp(staged = true) {
  const written: string[] = [];
  const waiting: { end: () => void; fail: (e: Error) => void }[] = [];
  const stage = staged ? new BulkStage(SEGMENT) : undefined;
  const writer: WalWriter = {
    positions: new WriterPositions(parseLsn('0/3000000')),
    write: (chunks) =>
      new Promise((resolve, reject) => {
        const text = Buffer.concat(chunks).toString('latin1');
        waiting.push({
          end: () => {
            written.push(text);
            resolve();
          },
          fail: reject,
        });
      }),
    sync: async () => {},
    ...(stage ? { stage } : {}),
    pending: 0,
    close: async () => {},
  };
  let writes = 0;
  const failures: unknown[] = [];
  const queue = new WriteQueue(
    writer,
    () => {
      writes += 1;
    },
    (e) => failures.push(e),
  );
  const endAll = async () => {
    while (waiting.length > 0) {
      waiting.shift()?.end();
      await new Promise(setImmediate);
    }
  };
  return {
    queue,
    written,
    waiting,
    failures,
    endAll,
    writes: () => writes,
    stageSize: stage?.worthwhile ?? 0,
  };
}

describe('WriteQueue', () => {
  it('keeps the order of copies and collected blocks', async () => {
    const s = setUp();
    const source = Buffer.from('first');
    s.queue.push([source], 0, false);
    source.fill('x');
    s.queue.push([Buffer.from('sec'), Buffer.from('ond')], 5, true);
    expect(s.queue.isBusy).toBe(true);
    s.queue.push([Buffer.from('third')], 11, false);
    const idle = s.queue.idle();
    await s.endAll();
    await idle;
    expect(s.written.join('')).toBe('firstsecondthird');
    expect(s.queue.isBusy).toBe(false);
    expect(s.writes()).toBe(2);
  });

  it('writes full blocks at once, the rest when it is released or old', async () => {
    const s = setUp();
    s.queue.push([Buffer.alloc(BLOCK + 10, 'a')], 0, true);
    expect(s.waiting.length).toBe(1);
    await s.endAll();
    expect(s.written.join('').length).toBe(BLOCK);
    s.queue.releaseOld(performance.now());
    expect(s.waiting.length).toBe(0);
    s.queue.releaseOld(performance.now() + 10_000);
    expect(s.waiting.length).toBe(1);
    await s.endAll();
    expect(s.written.join('').length).toBe(BLOCK + 10);
  });

  it('writes what is not bulk as soon as the disk is free', async () => {
    const s = setUp();
    s.queue.push([Buffer.from('a')], 0, false);
    expect(s.waiting.length).toBe(1);
    s.queue.push([Buffer.from('b')], 1, false);
    s.queue.push([Buffer.from('c')], 2, false);
    expect(s.waiting.length).toBe(1);
    await s.endAll();
    expect(s.written).toEqual(['a', 'bc']);
    expect(s.queue.isBusy).toBe(false);
  });

  it('is full until half of what waits is written', async () => {
    const s = setUp();
    s.queue.push([Buffer.alloc(s.stageSize - BLOCK + 10)], 0, true);
    expect([s.queue.isFull, s.queue.hasRoom]).toEqual([true, false]);
    await s.endAll();
    expect([s.queue.isFull, s.queue.hasRoom]).toEqual([false, true]);
    const copies = setUp(false);
    copies.queue.push([Buffer.alloc(4 * MB)], 0, false);
    expect(copies.queue.isFull).toBe(false);
    copies.queue.push([Buffer.alloc(1)], 4 * MB, false);
    expect([copies.queue.isFull, copies.queue.hasRoom]).toEqual([true, false]);
    await copies.endAll();
    expect([copies.queue.isFull, copies.queue.hasRoom]).toEqual([false, true]);
  });

  it('writes nothing behind a write that failed', async () => {
    const s = setUp();
    s.queue.push([Buffer.from('lost')], 0, false);
    s.queue.push([Buffer.from('behind it')], 4, false);
    s.queue.push([Buffer.from('and this')], 13, true);
    s.waiting.shift()?.fail(new Error('no'));
    await s.queue.idle();
    s.queue.push([Buffer.from('or that')], 21, false);
    await s.queue.idle();
    expect(s.waiting).toEqual([]);
    expect(s.written).toEqual([]);
    expect(s.failures).toEqual([new Error('no')]);
    expect(s.queue.isBusy).toBe(false);
  });
});
