import { readdirSync, readFileSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { formatLsn } from '../../src/lsn.js';
import { disposer } from '../support/cleanup.js';
import { runCli } from '../support/cli.js';
import { archiveDirectory, content, receive } from '../support/receiving.js';
import { scratchDir } from '../support/scratch.js';
import {
  backend,
  type Identity,
  type ScriptedConnection,
  ScriptedServer,
} from '../support/scripted-server.js';
import { waitFor } from '../support/wait.js';
import { makeWal } from '../wal/synthetic.js';

// WAL that failed the check comes again: what must not be lost meanwhile, and what heals.

const keep = disposer();
const SEGMENT = 1 << 20;
/** Over three segments, in records of 3001 bytes that tell apart. Some go over a segment's end. */
const bodies = (salt: number) =>
  Array.from({ length: 1150 }, (_, n) => ({
    body: Buffer.from(Array.from({ length: 3001 }, (_, i) => (n * 31 + i * 7 + salt) & 255)),
  }));
const wal = makeWal(bodies(0));
const OTHER = makeWal(bodies(99)).bytes;
const START = Number(wal.start);
const SECOND = START + SEGMENT;
const THIRD = SECOND + SEGMENT;
const END = THIRD + 300_000;
/** The first record that begins at or behind a place. */
const recordAt = (at: number) => Number(wal.lsns.find((lsn) => lsn >= at));

/** The WAL with a bit flipped `at`. */
function spoilt(at: number, bytes = wal.bytes): Buffer {
  const copy = Buffer.from(bytes);
  copy[at - START] = copy[at - START]! ^ 0x40;
  return copy;
}

/** In the record that goes on from the first segment to the second. */
const SPOILT_TAIL = spoilt(SECOND - 60);
const WRONG = /wrong checksum at 0\/50F[0-9A-F]+/;
const WRONG_ANYWHERE = /wrong checksum at/;
const OTHERS = /the server sent other bytes at .* than those acknowledged/;

type Play = (c: ScriptedConnection, lsn: number, timeline: number) => Promise<unknown>;

/** A server that does with each connection's stream what its play says; the last play stays. */
async function serving(plays: readonly Play[], identity: Identity = {}) {
  const starts: string[] = [];
  const server = keep(
    await ScriptedServer.listen(async (c, index) => {
      const { lsn, timeline } = await c.startStream({
        ...{ systemId: '77', segmentSizeMb: 1, flushLsn: index === 0 ? wal.start : BigInt(END) },
        ...identity,
      });
      starts.push(formatLsn(lsn));
      await plays[Math.min(index, plays.length - 1)]?.(c, Number(lsn), timeline);
    }),
  );
  const directory = archiveDirectory();
  const run = (...args: string[]) =>
    keep(receive(directory, server.conninfo({ sslmode: 'disable' }), ['--synchronous', ...args]));
  const acknowledged = async (index: number, lsn: number) =>
    (await server.connection(index)).waitStatus((s) => s.flush >= lsn);
  const files = () => readdirSync(directory).filter((name) => !name.startsWith('.'));
  return { server, starts, directory, run, acknowledged, files };
}

const flushed = (c: ScriptedConnection, to: number) =>
  waitFor(() => c.ended || c.statusReplies.some((s) => s.flush >= to));

/** Sends WAL up to a place, as fast as it goes, and waits until all is acknowledged. */
async function send(c: ScriptedConnection, bytes: Buffer, from: number, to: number) {
  for (let at = from; at < to; at += 65_536) {
    const part = bytes.subarray(at - START, Math.min(at + 65_536, to) - START);
    c.send(backend.xlogData(BigInt(at), part));
  }
  await flushed(c, to);
}

/** Then stays until the receiver ends the stream. */
const sends =
  (bytes: Buffer, to: number): Play =>
  async (c, lsn) => {
    await send(c, bytes, lsn, to);
    if (c.ended) return;
    await c.nextOf('c');
    c.send(backend.copyDone(), backend.commandComplete('COPY 0'));
    c.send(backend.commandComplete('START_STREAMING'), backend.readyForQuery());
    await c.nextOf('X');
    c.close();
  };

/** The first segment is complete and acknowledged; its last record turns out bad in the second. */
const refusedInSecond =
  (directory: () => string): Play =>
  async (c, lsn) => {
    await send(c, SPOILT_TAIL, lsn, SECOND);
    await waitFor(() => readdirSync(directory()).includes('000000010000000000000050'));
    c.send(backend.xlogData(BigInt(SECOND), SPOILT_TAIL.subarray(SEGMENT, SEGMENT + 60_000)));
  };

const first = '000000010000000000000050';
const goodFirst = wal.bytes.subarray(0, SEGMENT);
const stored = (directory: string, name: string) => content(join(directory, name));

test('a bad complete segment does not stay beside the good one in another form', async () => {
  const s = await serving([sends(SPOILT_TAIL, SECOND), sends(wal.bytes, END)]);
  const before = s.run();
  await s.acknowledged(0, SECOND);
  await waitFor(() => s.files().includes(first));
  await before.stop('SIGKILL');

  const after = s.run('-Z', 'gzip');
  await s.acknowledged(2, END);
  await waitFor(() => s.files().includes('000000010000000000000051.gz'));
  expect(await after.stop()).toEqual({ code: 0, signal: null });
  expect(after.stderr).toMatch(WRONG);
  expect(s.files()).toEqual(
    [first, '000000010000000000000051', '000000010000000000000052'].map(
      (name, i) => `${name}.gz${i === 2 ? '.partial' : ''}`,
    ),
  );
  expect(stored(s.directory, `${first}.gz`).equals(goodFirst)).toBe(true);
  const target = join(scratchDir('fetched'), first);
  const fetch = keep(runCli(['fetch', s.directory, first, target]));
  expect(await fetch.exit).toEqual({ code: 0, signal: null });
  expect(readFileSync(target).equals(goodFirst)).toBe(true);
});

test('a complete segment is not replaced by other WAL that is good in itself', async () => {
  const s = await serving([refusedInSecond(() => s.directory), sends(OTHER, END)]);
  const receiver = s.run();
  expect(await receiver.exit).toEqual({ code: 1, signal: null });
  expect(receiver.stderr).toMatch(OTHERS);
  expect(s.starts).toEqual(Array(5).fill('0/5000000'));
  const whole = SPOILT_TAIL.subarray(0, SEGMENT);
  expect(stored(s.directory, first).equals(whole)).toBe(true);
});

test('damage while a complete segment comes again heals, over a lost connection too', async () => {
  const record = recordAt(START + 100_000);
  const s = await serving([
    refusedInSecond(() => s.directory),
    async (c) => {
      // In a record whose end does not come any more.
      const bytes = spoilt(record + 500).subarray(0, record + 1500 - START);
      c.send(backend.xlogData(wal.start, bytes));
      await waitFor(() => c.ended);
    },
    sends(wal.bytes, END),
  ]);
  const receiver = s.run();
  await s.acknowledged(2, END);
  await waitFor(() => s.files().includes('000000010000000000000051'));
  expect(await receiver.stop()).toEqual({ code: 0, signal: null });
  expect(stored(s.directory, first).equals(goodFirst)).toBe(true);
  expect(s.files().sort()).toEqual([
    ...[first, '000000010000000000000051', '000000010000000000000052.partial'],
  ]);
});

test('what an ancestor holds is not written over when its child came damaged', async () => {
  const fork = recordAt(START + 600_000);
  const history = `1\t${formatLsn(BigInt(fork))}\tno reason\n`;
  const identity: Identity = { timeline: 2, histories: { 2: history } };
  const child = Buffer.from(wal.bytes);
  for (let page = 0; page < child.length; page += 8192) {
    if (START + page >= fork) child.writeUInt32LE(2, page + 4);
  }
  const bad = spoilt(START + 50_000, child).subarray(0, 60_000);
  const plays: Play[] = [
    async (c, lsn, timeline) => {
      if (timeline === 1) {
        await send(c, wal.bytes, lsn, fork);
        const next = { next_tli: '2', next_tli_startpos: formatLsn(BigInt(fork)) };
        await c.endStream(backend.resultSet(next));
        await c.serve({ ...identity, systemId: '77', segmentSizeMb: 1, flushLsn: BigInt(END) });
        c.send(backend.copyBoth());
      }
      c.send(backend.xlogData(wal.start, bad));
    },
    sends(OTHER, END),
  ];
  const before = await serving([sends(wal.bytes, START + 700_000)]);
  const { directory } = before;
  const receiver = before.run();
  await before.acknowledged(0, START + 700_000);
  await receiver.stop();

  const after = await serving(plays, identity);
  const again = keep(
    receive(directory, after.server.conninfo({ sslmode: 'disable' }), ['--synchronous']),
  );
  expect(await again.exit).toEqual({ code: 1, signal: null });
  expect(again.stderr).toMatch(WRONG_ANYWHERE);
  expect(again.stderr).toMatch(OTHERS);
  const held = stored(directory, `${first}.partial`).subarray(0, 700_000);
  expect(held.equals(wal.bytes.subarray(0, 700_000))).toBe(true);
});

test.each([
  ['within its record', 1500],
  ['behind it', 4500],
])('a bit flipped in WAL that is sent again heals, the read ends %s', async (_where, length) => {
  const record = recordAt(START + 100_000);
  const s = await serving([
    async (c, lsn) => {
      await send(c, wal.bytes, lsn, START + 300_000);
      c.reset();
    },
    async (c) => {
      const bytes = spoilt(record + 1000).subarray(0, record + length - START);
      c.send(backend.xlogData(wal.start, bytes));
      await waitFor(() => c.ended);
    },
    sends(wal.bytes, END),
  ]);
  const receiver = s.run();
  await s.acknowledged(2, END);
  expect(await receiver.stop()).toEqual({ code: 0, signal: null });
  expect(receiver.stderr).toMatch(length < 3000 ? OTHERS : WRONG_ANYWHERE);
});

test('a damaged unfinished record in a compressed partial is healed, over a lost connection too', async () => {
  const cut = START + 300_000;
  const s = await serving([
    sends(spoilt(cut - 100), cut),
    async (c, lsn) => {
      await send(c, wal.bytes, lsn, cut + 100_000);
      c.reset();
    },
    sends(wal.bytes, cut + 200_000),
  ]);
  const before = s.run('-Z', 'gzip');
  await s.acknowledged(0, cut);
  await before.stop();
  expect(s.files()).toEqual([`${first}.gz.partial`]);
  const after = s.run('-Z', 'gzip');
  await s.acknowledged(2, cut + 200_000);
  expect(await after.stop()).toEqual({ code: 0, signal: null });
  expect(s.files()).toEqual([`${first}.gz.partial`]);
  const good = wal.bytes.subarray(0, 500_000);
  expect(stored(s.directory, `${first}.gz.partial`).equals(good)).toBe(true);
});

test('no compressed partial of a segment stays beside it when it came by way of the one before', async () => {
  const s = await serving([sends(SPOILT_TAIL, SECOND + 200), sends(wal.bytes, END)]);
  const before = s.run('-Z', 'gzip');
  await s.acknowledged(0, SECOND + 200);
  await before.stop();
  expect(s.files()).toEqual([`${first}.gz`, '000000010000000000000051.gz.partial']);
  const after = s.run('-Z', 'gzip');
  await s.acknowledged(2, END);
  await waitFor(() => s.files().includes('000000010000000000000051.gz'));
  await after.stop();
  const names = [
    `${first}.gz`,
    '000000010000000000000051.gz',
    '000000010000000000000052.gz.partial',
  ];
  expect(s.files()).toEqual(names);
  // An archiver moves what is complete: what is left says where to go on.
  for (const name of names.slice(0, 2)) {
    renameSync(join(s.directory, name), join(scratchDir('moved'), name));
  }
  const again = s.run('-Z', 'gzip');
  await s.acknowledged(3, END);
  await again.stop();
  expect(s.starts.at(-1)).toBe(formatLsn(BigInt(THIRD)));
});

test('damaged WAL that the server has removed meanwhile is no gap that may be accepted', async () => {
  const s = await serving([
    refusedInSecond(() => s.directory),
    async (c) => {
      c.send(
        backend.errorResponse('58P01', `requested WAL segment ${first} has already been removed`),
      );
    },
  ]);
  const receiver = s.run('--accept-gap');
  expect(await receiver.exit).toEqual({ code: 3, signal: null });
  expect(receiver.stderr).toMatch(
    /received WAL was damaged, and the server no longer has it: .*wrong/,
  );
  expect(s.starts).toEqual(['0/5000000', '0/5000000']);
});
