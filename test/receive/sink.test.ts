import { expect, test } from 'vitest';
import { SinkError } from '../../src/errors.js';
import type { Lsn } from '../../src/lsn.js';
import { type StreamWalOptions, streamWal, type WalSink } from '../../src/receive/sink.js';
import { disposer } from '../support/cleanup.js';
import {
  backend,
  type Script,
  type ScriptedConnection,
  ScriptedServer,
} from '../support/scripted-server.js';
import { waitFor } from '../support/wait.js';
import { loadFixture } from '../wal/fixtures.js';

const keep = disposer();
const START = 0x3000000n;
const MB = 1024 * 1024;

/** Collects what it gets; `hold` makes the next calls of a method wait until `release`. */
class TestSink implements WalSink {
  readonly chunks: Buffer[] = [];
  readonly calls: string[] = [];
  end: bigint | undefined;
  fail: Partial<Record<'write' | 'flush' | 'close', Error>> = {};
  #held = new Map<string, { promise: Promise<void>; resolve: () => void }>();

  hold(method: 'write' | 'flush' | 'close'): void {
    let resolve = () => {};
    const promise = new Promise<void>((r) => {
      resolve = r;
    });
    this.#held.set(method, { promise, resolve });
  }

  release(method: 'write' | 'flush'): void {
    this.#held.get(method)?.resolve();
    this.#held.delete(method);
  }

  count(call: string): number {
    return this.calls.filter((c) => c === call).length;
  }

  async write(chunk: Buffer, lsn: Lsn): Promise<void> {
    this.calls.push('write');
    if (this.end !== undefined) expect(lsn).toBe(this.end);
    this.end = lsn + BigInt(chunk.length);
    this.chunks.push(chunk);
    await this.#held.get('write')?.promise;
    if (this.fail.write) throw this.fail.write;
  }

  async flush(): Promise<void> {
    this.calls.push('flush');
    await this.#held.get('flush')?.promise;
    if (this.fail.flush) throw this.fail.flush;
  }

  async close(): Promise<void> {
    this.calls.push('close');
    await this.#held.get('close')?.promise;
    if (this.fail.close) throw this.fail.close;
  }
}

const DONE = backend.commandComplete('COPY 0');
const READY = Buffer.concat([backend.commandComplete('START_STREAMING'), backend.readyForQuery()]);

/** Runs `streamWal` against a script; bytes are no WAL unless told otherwise. */
async function start(sink: WalSink, script: Script, options: Partial<StreamWalOptions> = {}) {
  const server = keep(await ScriptedServer.listen(script));
  const stop = new AbortController();
  const result = streamWal(
    {
      connection: server.conninfo({ sslmode: 'disable' }),
      startLsn: START as Lsn,
      verify: 'off',
      ...options,
    },
    sink,
    stop.signal,
  );
  result.catch(() => {});
  const connection = await server.connection(0);
  return { server, stop, result, connection };
}

/** Ends the stream and the connection when the client does. */
async function end(c: ScriptedConnection): Promise<void> {
  await c.nextOf('c');
  c.send(backend.copyDone(), DONE, READY);
  await c.nextOf('X');
  c.close();
}

/** A server that sends what `bytes` says. */
const sends =
  (...bytes: Buffer[]): Script =>
  async (c) => {
    await c.startStream();
    c.send(...bytes);
    await end(c);
  };

test('acknowledges only what a resolved flush covers', async () => {
  const sink = new TestSink();
  sink.hold('flush');
  const { connection, stop, result, server } = await start(
    sink,
    sends(backend.xlogData(START, Buffer.alloc(1000, 1))),
    { statusInterval: 1 },
  );
  await waitFor(() => sink.count('flush') === 1);
  // Written while that flush runs: not covered by it.
  connection.send(backend.xlogData(START + 1000n, Buffer.alloc(500, 2)));
  await connection.waitStatus((s) => s.write === START + 1500n);
  expect(connection.statusReplies.every((s) => s.flush === START)).toBe(true);
  const before = connection.statusReplies.length;
  sink.release('flush');
  await connection.waitStatus((s) => s.flush === START + 1500n);
  const flushes = connection.statusReplies.slice(before).map((s) => s.flush - START);
  expect(flushes[0]).toBe(1000n);
  expect(connection.statusReplies.every((s) => s.apply === 0n)).toBe(true);
  stop.abort();
  expect(await result).toBe(START + 1500n);
  expect(sink.count('close')).toBe(1);
  expect(server.errors).toEqual([]);
});

test.each([
  ['write', false],
  ['flush', false],
  ['write', true],
  ['flush', true],
] as const)(
  'a %s that never returns ends the stream; stopped before: %s',
  async (method, stops) => {
    const sink = new TestSink();
    sink.hold(method);
    const { result, stop } = await start(
      sink,
      sends(backend.xlogData(START, Buffer.alloc(1000, 1))),
      { sinkTimeout: 200 },
    );
    await waitFor(() => sink.count(method) === 1);
    if (stops) stop.abort();
    await expect(result).rejects.toThrow(SinkError);
    await expect(result).rejects.toThrow('the sink took nothing for 0.2 seconds');
    expect(sink.count('close')).toBe(1);
  },
);

test.each([
  ['write', {}],
  ['flush', { sinkTimeout: 0 }],
  ['close', {}],
] as const)('a %s that hangs does not hold up a stop', async (method, options) => {
  const sink = new TestSink();
  sink.hold(method);
  const { result, stop } = await start(
    sink,
    sends(backend.xlogData(START, Buffer.alloc(1000, 1))),
    options,
  );
  await waitFor(() => sink.count(method === 'close' ? 'flush' : method) === 1);
  stop.abort();
  await expect(result).rejects.toThrow('the sink did not come to an end after the stop');
  expect(sink.count('close')).toBe(1);
});

test('what fails while the stream is being stopped is told', async () => {
  const sink = new TestSink();
  sink.hold('write');
  const { result, stop } = await start(sink, sends(backend.xlogData(START, Buffer.alloc(1000, 1))));
  await waitFor(() => sink.count('write') === 1);
  stop.abort();
  sink.fail.write = new Error('bucket is gone');
  sink.release('write');
  await expect(result).rejects.toThrow('the sink failed to write: bucket is gone');
});

test('a stop flushes, and a last reply says so', async () => {
  const sink = new TestSink();
  const { connection, stop, result, server } = await start(
    sink,
    sends(backend.xlogData(START, Buffer.alloc(1000, 1))),
    { synchronous: false, statusInterval: 3600_000 },
  );
  await waitFor(() => sink.count('write') === 1);
  expect(sink.count('flush')).toBe(0);
  stop.abort();
  expect(await result).toBe(START + 1000n);
  expect(connection.statusReplies.at(-1)).toMatchObject({
    write: START + 1000n,
    flush: START + 1000n,
  });
  expect(sink.calls).toEqual(['write', 'flush', 'close']);
  expect(server.errors).toEqual([]);
});

test('a sink that is slow to write makes the server wait, with bounded memory', async () => {
  const sink = new TestSink();
  sink.hold('write');
  const total = 96 * MB;
  const { connection, stop, result } = await start(sink, async (c) => {
    await c.startStream();
    for (let at = 0; at < total; at += MB) {
      c.send(backend.xlogData(START + BigInt(at), Buffer.alloc(MB, at / MB)));
    }
    await end(c);
  });
  await waitFor(() => sink.count('write') === 1);
  // Until nothing moves any more.
  let before = -1;
  await waitFor(
    () => {
      const same = connection.socket.writableLength === before;
      before = connection.socket.writableLength;
      return same;
    },
    { intervalMs: 300 },
  );
  // 4 MiB and one read in our memory, the rest in the kernel's buffers.
  expect(total - connection.socket.writableLength).toBeLessThan(24 * MB);
  expect(sink.count('write')).toBe(1);
  sink.release('write');
  await waitFor(() => sink.end === START + BigInt(total));
  stop.abort();
  await result;
  const all = Buffer.concat(sink.chunks);
  for (let at = 0; at < total; at += MB / 2) expect(all[at]).toBe(Math.floor(at / MB));
});

test.each(['write', 'flush'] as const)('an error in %s ends the stream typed', async (method) => {
  const sink = new TestSink();
  const cause = new Error('bucket is gone');
  sink.fail[method] = cause;
  sink.fail.close = new Error('not told: the first failure counts');
  const { connection, result } = await start(
    sink,
    sends(backend.xlogData(START, Buffer.alloc(1000, 1))),
  );
  const error = await result.catch((e) => e);
  expect(error).toBeInstanceOf(SinkError);
  expect(error).toMatchObject({ code: 'WK_SINK', cause, retryable: false });
  expect(error.message).toBe(`the sink failed to ${method}: bucket is gone`);
  expect(sink.count('close')).toBe(1);
  await waitFor(() => connection.ended);
  expect(connection.statusReplies.every((s) => s.flush === START)).toBe(true);
});

test('an error in close is told if there was no other', async () => {
  const sink = new TestSink();
  sink.fail.close = new Error('still busy');
  const { stop, result } = await start(sink, sends(backend.xlogData(START, Buffer.alloc(1000, 1))));
  await waitFor(() => sink.count('flush') === 1);
  stop.abort();
  await expect(result).rejects.toMatchObject({ code: 'WK_SINK', message: /still busy/ });
});

const next = (timeline: number, lsn: string) =>
  Buffer.concat([
    backend.resultSet({ next_tli: String(timeline), next_tli_startpos: lsn }).subarray(0, -6),
    READY,
  ]);

test.each([true, false])('tells of a timeline that ended; goes on: %s', async (goesOn) => {
  const told: unknown[] = [];
  const sink = Object.assign(new TestSink(), {
    timeline: (to: unknown) => {
      told.push(to, sink.calls.at(-1));
      return goesOn;
    },
  });
  let second: unknown;
  const { stop, result, server } = await start(sink, async (c) => {
    await c.startStream();
    c.send(backend.xlogData(START, Buffer.alloc(1000, 1)));
    await c.waitStatus((s) => s.flush === START + 1000n);
    await c.endStream(next(2, '0/30003E8'));
    expect(await c.nextQuery()).toBe('TIMELINE_HISTORY 2');
    c.send(backend.resultSet({ filename: '00000002.history', content: '1\t0/30003E8\tx\n' }));
    if (!goesOn) {
      await c.nextOf('X');
      c.close();
      return;
    }
    second = await c.serve();
    c.send(backend.copyBoth(), backend.xlogData(START + 1000n, Buffer.alloc(10, 2)));
    await c.waitStatus((s) => s.flush === START + 1010n);
    await end(c);
  });
  if (goesOn) {
    await waitFor(() => sink.end === START + 1010n);
    stop.abort();
  }
  expect(await result).toBe(START + (goesOn ? 1010n : 1000n));
  const ancestors = [{ timeline: 1, end: START + 1000n, reason: 'x' }];
  const history = { timeline: 2, ancestors };
  expect(told).toEqual([{ timeline: 2, lsn: START + 1000n, history }, 'flush']);
  if (goesOn) expect(second).toMatchObject({ lsn: START + 1000n, timeline: 2 });
  expect(sink.count('close')).toBe(1);
  expect(server.errors).toEqual([]);
});

test('a timeline whose history says something else is not told to the sink', async () => {
  const told: unknown[] = [];
  const sink = Object.assign(new TestSink(), { timeline: (to: unknown) => void told.push(to) });
  const { result } = await start(sink, async (c) => {
    await c.startStream();
    c.send(backend.xlogData(START, Buffer.alloc(1000, 1)));
    await c.waitStatus((s) => s.flush === START + 1000n);
    await c.endStream(next(2, '0/30003E8'));
    await c.nextQuery();
    c.send(backend.resultSet({ filename: '00000002.history', content: '1\t0/3000001\tx\n' }));
  });
  await expect(result).rejects.toMatchObject({ code: 'WK_PROTOCOL', retryable: true });
  expect(told).toEqual([]);
});

test('a server that is silent in the login ends at twice the receive timeout', async () => {
  const { result } = await start(new TestSink(), async () => {}, { receiveTimeout: 100 });
  await expect(result).rejects.toMatchObject({ code: 'WK_TIMEOUT' });
});

test('damaged WAL never reaches the sink', async () => {
  const wal = loadFixture('mixed-18');
  const bytes = Buffer.from(wal.bytes.subarray(0, Number(wal.end - wal.start)));
  const bad = 200_000;
  bytes[bad] = bytes[bad]! ^ 1;
  const sink = new TestSink();
  const parts: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += 8192) {
    parts.push(backend.xlogData(wal.start + BigInt(at), bytes.subarray(at, at + 8192)));
  }
  const { connection, result } = await start(
    sink,
    async (c) => {
      await c.startStream({
        systemId: String(wal.systemId),
        segmentSizeMb: wal.segmentSize / MB,
        flushLsn: wal.end,
      });
      c.send(...parts);
    },
    { startLsn: wal.start, verify: 'strict' },
  );
  await expect(result).rejects.toMatchObject({ code: 'WK_CORRUPT_WAL' });
  expect(sink.end).toBeLessThanOrEqual(wal.start + BigInt(bad));
  for (const s of connection.statusReplies) expect(s.flush).toBeLessThanOrEqual(sink.end as bigint);
});

test('checks from the next page on where the start is within one', async () => {
  const wal = loadFixture('mixed-18');
  const from = 12_345;
  const bytes = wal.bytes.subarray(from, Number(wal.end - wal.start));
  const sink = new TestSink();
  const lsn = (wal.start + BigInt(from)) as Lsn;
  const { stop, result } = await start(
    sink,
    async (c) => {
      await c.startStream({
        systemId: String(wal.systemId),
        segmentSizeMb: wal.segmentSize / MB,
        flushLsn: wal.end,
      });
      c.send(backend.xlogData(lsn, bytes));
      await end(c);
    },
    { startLsn: lsn, verify: 'strict' },
  );
  await waitFor(() => sink.end === wal.end);
  stop.abort();
  expect(await result).toBe(wal.end);
  expect(Buffer.concat(sink.chunks).equals(bytes)).toBe(true);
});

test('refuses another cluster, and aborts before a stream with its reason', async () => {
  const sink = new TestSink();
  const { result } = await start(sink, sends(), { systemId: 1n });
  await expect(result).rejects.toMatchObject({ code: 'WK_SYSTEM_IDENTIFIER', expected: '1' });
  const { result: aborted, stop } = await start(sink, async () => {});
  stop.abort(new Error('enough'));
  await expect(aborted).rejects.toThrow('enough');
});
