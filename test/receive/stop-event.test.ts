import { expect, test } from 'vitest';
import { acquireDirectoryLock } from '../../src/files/lock.js';
import type { Lsn } from '../../src/lsn.js';
import { WalReceiver } from '../../src/receive/receiver.js';
import { disposer } from '../support/cleanup.js';
import { scratchDir } from '../support/scratch.js';
import { backend, type Script, ScriptedServer } from '../support/scripted-server.js';

const keep = disposer();
const START = 0x3000000n;

/** A receiver that never waits less than a minute to connect again, and its stop events. */
async function receiving(script: Script, directory = scratchDir('stop')) {
  const server = keep(await ScriptedServer.listen(script));
  const receiver = new WalReceiver({
    connection: server.conninfo({ sslmode: 'disable' }),
    ...{ directory, verify: 'off' as const, retryDelay: 60_000, statusInterval: 10 },
  });
  const stops: object[] = [];
  receiver.on('stop', (event) => stops.push(event));
  return { receiver, stops, stop: new AbortController() };
}

const breaksAfter =
  (bytes: number): Script =>
  async (c) => {
    await c.startStream();
    c.send(backend.xlogData(START, Buffer.alloc(bytes, 1)));
    await c.waitStatus((s) => s.write === START + BigInt(bytes));
    c.reset();
  };

test('aborted while it waits to connect again, run says how far it came', async () => {
  const { receiver, stops, stop } = await receiving(breaksAfter(5000));
  receiver.on('disconnect', () => stop.abort());
  expect(await receiver.run(stop.signal)).toBe(START + 5000n);
  expect(stops).toEqual([{ lsn: START + 5000n, timeline: 1, reason: 'signal' }]);
});

test('also when nothing came yet', async () => {
  const { receiver, stops, stop } = await receiving(async (c) => c.reset());
  receiver.on('disconnect', () => stop.abort());
  expect(await receiver.run(stop.signal)).toBe(0n);
  expect(stops).toEqual([{ lsn: 0n, timeline: 0, reason: 'signal' }]);
});

test('also while it waits for the directory', async () => {
  const directory = scratchDir('stop');
  const lock = await acquireDirectoryLock(directory);
  const { receiver, stops, stop } = await receiving(async (c) => c.reset(), directory);
  const ended = receiver.run(stop.signal);
  stop.abort();
  expect(await ended).toBe(0n as Lsn);
  expect(stops).toHaveLength(1);
  await lock.release();
});

test('a stop in a stream, and one that fails, are told once and not at all', async () => {
  const clean = await receiving(async (c) => {
    await c.startStream();
    c.send(backend.xlogData(START, Buffer.alloc(100, 1)));
    await c.nextOf('c');
    c.send(backend.copyDone(), backend.commandComplete('COPY 0'));
    c.send(backend.commandComplete('START_STREAMING'), backend.readyForQuery());
  });
  clean.receiver.on('progress', ({ written }) => {
    if (written === START + 100n) clean.stop.abort();
  });
  expect(await clean.receiver.run(clean.stop.signal)).toBe(START + 100n);
  expect(clean.stops).toEqual([{ lsn: START + 100n, timeline: 1, reason: 'signal' }]);

  const failing = await receiving(breaksAfter(5000), `${scratchDir('missing')}/no`);
  await expect(failing.receiver.run(failing.stop.signal)).rejects.toMatchObject({
    code: 'WK_STORAGE',
  });
  expect(failing.stops).toEqual([]);
});
