import { readdirSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { disposer } from '../support/cleanup.js';
import { archiveDirectory, receive } from '../support/receiving.js';
import { backend, ScriptedServer } from '../support/scripted-server.js';
import { makeWal } from '../wal/synthetic.js';

// What a directory holds that another tool began, or that changed while nobody looked.

const keep = disposer();
const SEGMENT = 1 << 20;
const wal = makeWal(Array.from({ length: 500 }, (_, n) => ({ body: Buffer.alloc(3001, n) })));
const name = (n: number) => `0000000100000000000000${n}`;

/** A server that sends the WAL from wherever it is asked; `sizeMb` by connection. */
async function listen(sizeMb: (index: number) => number) {
  const starts: bigint[] = [];
  const server = keep(
    await ScriptedServer.listen(async (c, index) => {
      const segmentSizeMb = sizeMb(index);
      const { lsn } = await c.startStream({ systemId: '77', segmentSizeMb, flushLsn: wal.start });
      starts.push(lsn);
      c.send(backend.xlogData(lsn, wal.bytes.subarray(Number(lsn - wal.start))));
      await c.nextOf('c').catch(() => {});
      c.close();
    }),
  );
  const directory = archiveDirectory();
  const run = (...args: string[]) =>
    keep(receive(directory, server.conninfo({ sslmode: 'disable' }), ['--synchronous', ...args]));
  return { server, starts, directory, run };
}

const end = wal.start + BigInt(wal.bytes.length);

test('a file of full size whose WAL ends before is a complete segment, and that is said', async () => {
  const s = await listen(() => 1);
  const bytes = Buffer.alloc(SEGMENT);
  wal.bytes.copy(bytes, 0, 0, 300_000);
  writeFileSync(join(s.directory, name(50)), bytes);
  const receiver = s.run();
  await (await s.server.connection(0)).waitStatus((r) => r.flush === end);
  await receiver.stop();
  expect(s.starts).toEqual([wal.start + BigInt(SEGMENT)]);
  expect(receiver.stderr).toMatch(
    /warning: "0{7}1.*50" has the size of a complete segment, but its WAL ends at 0\/504[0-9A-F]+: .*0\/5100000/,
  );
});

test('a whole one is taken without a word', async () => {
  const s = await listen(() => 1);
  writeFileSync(join(s.directory, name(50)), wal.bytes.subarray(0, SEGMENT));
  const receiver = s.run();
  await (await s.server.connection(0)).waitStatus((r) => r.flush === end);
  await receiver.stop();
  expect(receiver.stderr).not.toMatch(/has the size of/);
});

test('one that the ledger does not know is received again', async () => {
  const s = await listen(() => 1);
  const before = s.run();
  await (await s.server.connection(0)).waitStatus((r) => r.flush === end);
  await before.stop();
  const bytes = Buffer.alloc(SEGMENT);
  wal.bytes.copy(bytes, 0, SEGMENT, SEGMENT + 100_000);
  writeFileSync(join(s.directory, name(51)), bytes);
  const after = s.run();
  await (await s.server.connection(1)).waitStatus((r) => r.flush === end);
  await after.stop();
  expect(s.starts[1]).toBe(wal.start + BigInt(SEGMENT));
  expect(after.stderr).toMatch(/51" has the size of .*: it is received again/);
});

test('a partial file that was removed is told of, once', async () => {
  const s = await listen(() => 1);
  const before = s.run();
  await (await s.server.connection(0)).waitStatus((r) => r.flush === end);
  await before.stop();
  unlinkSync(join(s.directory, `${name(51)}.partial`));
  const after = s.run();
  await (await s.server.connection(1)).waitStatus((r) => r.flush === end);
  await after.stop();
  expect(after.stderr.match(/warning: .*/g)?.filter((w) => w.includes('acknowledged'))).toEqual([
    expect.stringMatching(/51.partial" was gone with acknowledged WAL from 0\/5100000 on; it is/),
  ]);
});

test('another segment size is refused though the directory was emptied', async () => {
  const s = await listen((index) => (index === 0 ? 1 : 4));
  const before = s.run();
  await (await s.server.connection(0)).waitStatus((r) => r.flush === end);
  await before.stop();
  for (const file of readdirSync(s.directory)) {
    if (!file.startsWith('.')) unlinkSync(join(s.directory, file));
  }
  const after = s.run('--accept-gap');
  expect(await after.exit).toEqual({ code: 1, signal: null });
  expect(after.stderr).toMatch(/holds segments of 1048576 bytes, the server makes them of 4194304/);
});
