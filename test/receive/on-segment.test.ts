import { readdirSync } from 'node:fs';
import { basename } from 'node:path';
import { afterEach, expect, test, vi } from 'vitest';
import type { ReceivedSegment, WalReceiverOptions } from '../../src/receive/options.js';
import { WalReceiver } from '../../src/receive/receiver.js';
import { disposer } from '../support/cleanup.js';
import { scratchDir } from '../support/scratch.js';
import { backend, type Script, ScriptedServer } from '../support/scripted-server.js';
import { waitFor } from '../support/wait.js';
import { makeWal } from '../wal/synthetic.js';

const keep = disposer();
afterEach(() => void vi.restoreAllMocks());
const MB = 1024 * 1024;
/** A little more than twelve segments. */
const wal = makeWal(Array.from({ length: 425 }, (_, n) => ({ body: Buffer.alloc(30_001, n) })));
const SEGMENTS = Math.floor(wal.bytes.length / MB);
const identity = { systemId: '77', segmentSizeMb: 1, flushLsn: wal.start };

/** A server with twelve segments, all of which it sends at once. */
const sendsAll: Script = async (c) => {
  const { lsn } = await c.startStream(identity);
  c.send(backend.xlogData(lsn, wal.bytes.subarray(Number(lsn - wal.start))));
  await c.nextOf('c').catch(() => {});
  c.close();
};

async function receiving(
  options: Pick<WalReceiverOptions, 'onSegment'> & Partial<WalReceiverOptions>,
  script: Script = sendsAll,
) {
  const server = keep(await ScriptedServer.listen(script));
  const directory = options.directory ?? scratchDir('on-segment');
  const connection = server.conninfo({ sslmode: 'disable' });
  const receiver = new WalReceiver({ connection, directory, retryDelay: 0, ...options });
  return { server, receiver, stop: new AbortController(), directory };
}

const finalNames = (directory: string) =>
  readdirSync(directory)
    .filter((name) => /^[0-9A-F]{24}(\.\w+)?$/.test(name) && !name.endsWith('.partial'))
    .sort();

const partials = (directory: string) =>
  readdirSync(directory).filter((name) => name.endsWith('.partial'));

test.each([undefined, { method: 'gzip' as const }])(
  'while a segment is handed on no later one has its final name, compression %j',
  async (compression) => {
    const seen: string[] = [];
    const later: string[] = [];
    const { receiver, stop, directory } = await receiving({
      ...(compression ? { compression } : {}),
      synchronous: true,
      onSegment: async ({ path }: ReceivedSegment) => {
        seen.push(basename(path));
        // What comes meanwhile is complete by then.
        for (let turn = 0; turn < 100; turn++) {
          await new Promise((resolve) => setImmediate(resolve));
          later.push(...finalNames(directory).filter((name) => name > basename(path)));
        }
        if (seen.length === SEGMENTS) stop.abort();
      },
    });
    await receiver.run(stop.signal);
    expect(later).toEqual([]);
    expect(seen).toHaveLength(12);
    expect(finalNames(directory)).toEqual(seen);
  },
);

test('what throws when the connection is gone ends the receiver all the same', async () => {
  let fail: ((error: Error) => void) | undefined;
  const script: Script = async (c) => {
    const { lsn } = await c.startStream(identity);
    // Not so much that the receiver stops reading.
    c.send(backend.xlogData(lsn, wal.bytes.subarray(Number(lsn - wal.start), 3 * MB)));
    c.close();
  };
  const { receiver, server } = await receiving(
    { onSegment: () => new Promise<void>((_, reject) => (fail = reject)) },
    script,
  );
  const running = receiver.run();
  running.catch(() => {});
  await waitFor(() => fail && server.connections[0]?.ended, {
    what: 'the end of the connection',
  });
  fail?.(new Error('bucket is gone'));
  await expect(running).rejects.toMatchObject({
    code: 'WK_SINK',
    message: expect.stringMatching(/^onSegment failed for ".*[0-9A-F]{24}": bucket is gone$/),
  });
});

test('the next run hands on what the last one did not, in order, and nothing twice', async () => {
  const seen: string[] = [];
  const first = await receiving({
    synchronous: true,
    onSegment: async ({ path }) => {
      seen.push(basename(path));
      // All that the stream is paused at are there by then, without their names.
      await waitFor(() => partials(first.directory).length >= 8, { what: 'partials' });
      throw new Error('bucket is gone');
    },
  });
  const { directory } = first;
  await expect(first.receiver.run()).rejects.toMatchObject({ code: 'WK_SINK' });
  expect(finalNames(directory)).toEqual(seen);
  const named: string[][] = [];
  const { receiver, stop } = await receiving({
    directory,
    synchronous: true,
    onSegment: ({ path }) => {
      seen.push(basename(path));
      named.push(finalNames(directory));
      if (seen.length === SEGMENTS) stop.abort();
    },
  });
  await receiver.run(stop.signal);
  expect(finalNames(directory)).toEqual(seen);
  expect(seen).toHaveLength(12);
  expect(named).toEqual(seen.slice(1).map((_, n) => seen.slice(0, n + 2)));
});

test('an onSegment is told of the stop, and has it end in order if it ends too', async () => {
  const { receiver, stop } = await receiving({
    onSegment: (_, { signal }) =>
      new Promise<void>((resolve) => {
        if (signal.aborted) resolve();
        signal.addEventListener('abort', () => resolve(), { once: true });
        stop.abort();
      }),
  });
  await expect(receiver.run(stop.signal)).resolves.toBeGreaterThan(wal.start);
});

test('an onSegment that does not end does not hold up a stop', async () => {
  const { receiver, stop, directory } = await receiving({
    onSegment: () => {
      stop.abort();
      return new Promise<void>(() => {});
    },
  });
  await expect(receiver.run(stop.signal)).rejects.toMatchObject({
    code: 'WK_SINK',
    message: expect.stringMatching(
      /^onSegment did not come to an end after the stop, called for ".*[0-9A-F]{24}"$/,
    ),
  });
  expect(finalNames(directory)).toHaveLength(1);
});

test('an onSegment that takes nothing for long is what the disconnect tells of', async () => {
  const real = performance.now.bind(performance);
  let ahead = 0;
  let go = (): void => {};
  const held = new Promise<void>((resolve) => {
    go = resolve;
  });
  vi.spyOn(performance, 'now').mockImplementation(() => real() + ahead);
  const { receiver, server, stop, directory } = await receiving({
    onSegment: () => held,
    // Not the time that counts here.
    receiveTimeout: 0,
  });
  const told = new Promise<string>((resolve) => {
    receiver.on('disconnect', ({ error }) => resolve(`${error.message}; ${error.hint}`));
  });
  const running = receiver.run(stop.signal);
  running.catch(() => {});
  await waitFor(() => partials(directory).length >= 8, { what: 'partials' });
  await waitFor(
    () => {
      ahead += 61_000;
      return server.connections[0]?.ended;
    },
    { what: 'the receiver to disconnect', intervalMs: 500 },
  );
  go();
  expect(await told).toMatch(
    /^onSegment, called for ".*[0-9A-F]{24}", took nothing for 60 seconds; Disconnected .* goes on when/,
  );
  stop.abort();
  await running;
});
