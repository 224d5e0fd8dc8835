import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { readLedger } from '../../src/archive/ledger.js';
import type { Lsn } from '../../src/lsn.js';
import { segmentFileName, segmentOf, segmentStart } from '../../src/wal/file-name.js';
import { WalVerifier } from '../../src/wal/verifier.js';
import { disposer } from '../support/cleanup.js';
import { MAJORS, PostgresServer } from '../support/postgres.js';
import {
  archiveDirectory,
  differences,
  holds,
  receive,
  waitEqual,
  writeWal,
} from '../support/receiving.js';
import {
  backend,
  type Script,
  ScriptedServer,
  type StatusReply,
} from '../support/scripted-server.js';
import { TcpProxy } from '../support/tcp-proxy.js';
import { waitFor } from '../support/wait.js';
import { loadFixture, optionsFor } from '../wal/fixtures.js';

const keep = disposer();
const wal = loadFixture('switch');
const used = Number(wal.end - wal.start);
/** A byte near the end of the fourth segment, and where that begins. */
const BAD = 0x9fc900 - Number(wal.start);
const SEGMENT = 3;
const BEGIN = SEGMENT * wal.segmentSize;

/** The fixture's WAL with one flipped byte, and V: where its last good record ends. */
const damaged = (() => {
  const bytes = Buffer.from(wal.bytes.subarray(0, used));
  bytes[BAD] = bytes[BAD]! ^ 0x40;
  const verifier = new WalVerifier(optionsFor(wal));
  verifier.feed(bytes);
  return { bytes, verifiedEnd: verifier.verifiedEnd };
})();

/** Serves `bytes(connection)` from wherever it is asked; `starts` gets the requests. */
function serving(bytes: (index: number) => Buffer, starts: Lsn[]): Script {
  return async (c, index) => {
    const start = await c.startStream({
      systemId: String(wal.systemId),
      segmentSizeMb: wal.segmentSize / 1024 / 1024,
      flushLsn: index === 0 ? wal.start : wal.end,
    });
    starts.push(start.lsn);
    for (let at = Number(start.lsn - wal.start); at < used; at += 65_536) {
      const data = bytes(index).subarray(at, at + 65_536);
      c.send(backend.xlogData(wal.start + BigInt(at), data));
      // One read at a time: as a server sends what is being written.
      await waitFor(
        () =>
          c.ended || c.statusReplies.some((s) => s.flush >= wal.start + BigInt(at + data.length)),
        { intervalMs: 1, what: 'an acknowledgement' },
      );
      if (c.ended) return;
    }
    await c.nextOf('c');
    c.send(
      backend.copyDone(),
      backend.commandComplete('COPY 0'),
      backend.commandComplete('START_STREAMING'),
      backend.readyForQuery(),
    );
    await c.nextOf('X');
    c.close();
  };
}

async function listen(bytes: (index: number) => Buffer) {
  const starts: Lsn[] = [];
  const server = keep(await ScriptedServer.listen(serving(bytes, starts)));
  const directory = archiveDirectory();
  const acknowledged = () =>
    server.connections
      .flatMap((c): StatusReply[] => c.statusReplies)
      .reduce((max, s) => (s.flush > max ? s.flush : max), 0n);
  const run = (...args: string[]) =>
    keep(receive(directory, server.conninfo({ sslmode: 'disable' }), ['--synchronous', ...args]));
  return { server, starts, directory, acknowledged, run };
}

/** The directory's bytes of one segment of the fixture. */
function stored(directory: string, index: number): Buffer {
  const segment = segmentOf(wal.start, wal.segmentSize) + BigInt(index);
  const name = segmentFileName(1, segment, wal.segmentSize);
  const file = readdirSync(directory).find((n) => n === name || n === `${name}.partial`);
  return readFileSync(join(directory, file as string));
}

/**
 * As `waitEqual`. A bad record that began in a complete segment has that one received and put in
 * place again; the one before is kept as evidence.
 */
async function waitHealed(directory: string, server: PostgresServer): Promise<void> {
  const end = await server.currentLsn();
  await waitFor(async () => (await holds(directory, server, end)) === undefined);
  await waitFor(() => {
    const problems = differences(directory, [server]).filter((p) => !p.includes('.replaced'));
    if (problems.length > 0) throw new Error(problems.join('; '));
    return true;
  });
}

const refusedFiles = (directory: string) =>
  readdirSync(directory).filter((name) => name.startsWith('.walkeep-refused-'));

test('damaged WAL is never acknowledged, asked for again, then given up with exit code 3', async () => {
  const { server, starts, directory, acknowledged, run } = await listen(() => damaged.bytes);
  const receiver = run();
  expect(await receiver.exit).toEqual({ code: 3, signal: null });
  const segment = segmentStart(segmentOf(damaged.verifiedEnd, wal.segmentSize), wal.segmentSize);
  expect(starts).toEqual([wal.start, segment, segment, segment]);
  expect(server.errors).toEqual([]);
  expect(receiver.stderr).toMatch(
    /error: the server keeps sending damaged WAL: .* at [0-9A-F]+\/[0-9A-F]+\n/,
  );
  expect(receiver.stderr).toMatch(/detail: Receiving stopped; no record behind the last good one/);
  expect(receiver.stderr).toMatch(/hint: Check the server .* --verify=warn/);
  expect(receiver.stderr).not.toMatch(/^\s+at /m);

  expect(acknowledged()).toBeLessThanOrEqual(damaged.verifiedEnd);
  expect(acknowledged()).toBeGreaterThan(damaged.verifiedEnd - 65_536n);
  expect(refusedFiles(directory).length).toBeGreaterThan(0);
  const [evidence] = refusedFiles(directory);
  expect(readFileSync(join(directory, evidence as string)).length).toBeGreaterThan(0);
  expect(stored(directory, 0).equals(wal.bytes.subarray(0, wal.segmentSize))).toBe(true);
  const sound = Number(damaged.verifiedEnd - wal.start) - BEGIN;
  const partial = stored(directory, SEGMENT);
  const expected = wal.bytes.subarray(BEGIN, BEGIN + sound);
  expect(partial.subarray(0, sound).equals(expected)).toBe(true);
  expect(partial.subarray(sound).every((byte) => byte === 0)).toBe(true);

  // The server is mended: what is stored is gone on with, nothing is refused as a rewrite.
  const mended = await ScriptedServer.listen(serving(() => wal.bytes.subarray(0, used), []));
  keep(mended);
  const again = keep(
    receive(directory, mended.conninfo({ sslmode: 'disable' }), ['--synchronous']),
  );
  const connection = await mended.connection(0);
  await connection.waitStatus((s) => s.flush === wal.end);
  expect(await again.stop()).toEqual({ code: 0, signal: null });
  const whole = wal.bytes.subarray(BEGIN, BEGIN + wal.segmentSize);
  expect(stored(directory, SEGMENT).equals(whole)).toBe(true);
});

test('WAL that is right when asked for again is gone on with', async () => {
  const good = wal.bytes.subarray(0, used);
  const { starts, directory, run, server } = await listen((n) => (n < 3 ? damaged.bytes : good));
  const receiver = run();
  const last = await server.connection(3);
  await last.waitStatus((s) => s.flush === wal.end);
  expect(await receiver.stop()).toEqual({ code: 0, signal: null });
  expect(starts).toHaveLength(4);
  for (let i = 0; i * wal.segmentSize < used; i++) {
    const expected = good.subarray(i * wal.segmentSize, (i + 1) * wal.segmentSize);
    expect(stored(directory, i).subarray(0, expected.length).equals(expected), `${i}`).toBe(true);
  }
});

test('WAL that came right is not asked for again when the connection is lost at once', async () => {
  const good = wal.bytes.subarray(0, used);
  const starts: Lsn[] = [];
  const honest = serving((n) => (n === 0 ? damaged.bytes : good), starts);
  const server = keep(
    await ScriptedServer.listen(async (c, index) => {
      if (index !== 1) return honest(c, index);
      const { lsn } = await c.startStream({
        systemId: String(wal.systemId),
        segmentSizeMb: wal.segmentSize / 1024 / 1024,
        flushLsn: wal.end,
      });
      starts.push(lsn);
      c.send(backend.xlogData(lsn, good.subarray(Number(lsn - wal.start))));
      await c.waitStatus((s) => s.flush === wal.end);
      c.reset();
    }),
  );
  const directory = archiveDirectory();
  const receiver = keep(
    receive(directory, server.conninfo({ sslmode: 'disable' }), ['--synchronous']),
  );
  const last = await server.connection(2);
  await last.waitStatus((s) => s.flush === wal.end);
  expect(await receiver.stop()).toEqual({ code: 0, signal: null });
  const newest = segmentStart(segmentOf(wal.end, wal.segmentSize), wal.segmentSize);
  expect(starts).toEqual([wal.start, wal.start + BigInt(BEGIN), newest]);
});

test('WAL that is stored good is not replaced by what comes damaged in its place', async () => {
  const starts: Lsn[] = [];
  // The segment of the damage to nearly its end, and up to within the damaged record.
  const most = BEGIN + wal.segmentSize - 8;
  const sent = [
    wal.bytes.subarray(0, most),
    damaged.bytes.subarray(0, most),
    damaged.bytes.subarray(0, BAD + 1),
  ];
  const server = keep(
    await ScriptedServer.listen(async (c, index) => {
      const { lsn } = await c.startStream({
        systemId: String(wal.systemId),
        segmentSizeMb: wal.segmentSize / 1024 / 1024,
        flushLsn: index === 0 ? wal.start : wal.end,
      });
      starts.push(lsn);
      const bytes = (sent[Math.min(index, 2)] as Buffer).subarray(Number(lsn - wal.start));
      c.send(backend.xlogData(lsn, bytes));
      const end = lsn + BigInt(bytes.length);
      await waitFor(() => c.ended || c.statusReplies.some((s) => s.flush >= end));
      c.close();
    }),
  );
  const directory = archiveDirectory();
  const receiver = keep(
    receive(directory, server.conninfo({ sslmode: 'disable' }), ['--synchronous']),
  );
  expect(await receiver.exit).toEqual({ code: 1, signal: null });
  expect(receiver.stderr).toMatch(/the server sent other bytes at .* than those/);
  const begin = wal.start + BigInt(BEGIN);
  expect(starts).toEqual([wal.start, ...Array(5).fill(begin)]);
  const good = wal.bytes.subarray(BEGIN, most);
  expect(stored(directory, SEGMENT).subarray(0, good.length).equals(good)).toBe(true);
});

test('--verify=warn stores and acknowledges it, and the ledger says so', async () => {
  const { server, directory, run } = await listen(() => damaged.bytes);
  const receiver = run('--verify=warn');
  const connection = await server.connection(0);
  await connection.waitStatus((s) => s.flush === wal.end);
  expect(await receiver.stop()).toEqual({ code: 0, signal: null });
  expect(receiver.stderr.match(/warning: received WAL is damaged: /g)).toHaveLength(1);
  expect(server.connections).toHaveLength(1);
  const whole = damaged.bytes.subarray(BEGIN, BEGIN + wal.segmentSize);
  expect(stored(directory, SEGMENT).equals(whole)).toBe(true);
  const ledger = await readLedger(directory);
  expect(ledger?.damages).toHaveLength(1);
  expect(ledger?.damages[0]).toMatchObject({ timeline: 1, why: expect.any(String) });
  expect(ledger?.damages[0]?.lsn).toBeLessThanOrEqual(wal.start + BigInt(BAD));
  expect(refusedFiles(directory)).toEqual([]);
});

test.skipIf(MAJORS.length === 0)('a bit flipped on the way heals by itself', async () => {
  const server = keep(await PostgresServer.create({ major: MAJORS.at(-1)!, archive: true }));
  const proxy = keep(await TcpProxy.listen(server.port));
  const directory = archiveDirectory();
  const conninfo = proxy.conninfo({ sslmode: 'disable', application_name: 'walkeep' });
  const run = keep(receive(directory, conninfo, ['--synchronous']));
  await run.waitForOutput(/starting log streaming/);
  await writeWal(server, 300_000);
  await waitEqual(directory, server);
  for (let round = 0; round < 3; round++) {
    proxy.flipBit(20_000);
    await writeWal(server, 1_500_000);
    await waitFor(() => proxy.flipped, { what: 'the bit to be flipped' });
    await waitFor(() => run.stderr.match(/to try again/g)?.length === round + 1);
    await waitHealed(directory, server);
  }
  expect(await run.stop()).toEqual({ code: 0, signal: null });
  expect(refusedFiles(directory).length).toBeGreaterThan(0);
  expect(run.stderr).toMatch(/error: .* at [0-9A-F]+\/[0-9A-F]+\n/);
});

/** Writes one record of so many incompressible bytes. */
async function writeRecord(server: PostgresServer, bytes: number): Promise<void> {
  await server.sql(
    `SELECT pg_logical_emit_message(true, 'long', string_agg(sha512((random()::text || i)::bytea), ''))
       FROM generate_series(1, $1::int / 64) i`,
    [bytes],
  );
}

/** True once something is stored at a position. */
function nonZeroAt(directory: string, lsn: bigint, { segmentSize }: PostgresServer): boolean {
  const name = segmentFileName(1, segmentOf(lsn as Lsn, segmentSize), segmentSize);
  const file = readdirSync(directory).find((n) => n === name || n === `${name}.partial`);
  const at = Number(lsn % BigInt(segmentSize));
  const bytes = file === undefined ? Buffer.alloc(0) : readFileSync(join(directory, file));
  return bytes.subarray(at, at + 64).some((byte) => byte !== 0);
}

// Where the record begins, its length and how much of it comes, how the receiver loses sight of it.
test.skipIf(MAJORS.length === 0).each([
  ['begins in the segment', 10_000, 600_000, 250_000, 'reconnects', []],
  ['begins in the segment', 10_000, 600_000, 250_000, 'is killed', []],
  ['began in the segment before', 900_000, 600_000, 250_000, 'reconnects', []],
  ['began in the segment before', 900_000, 600_000, 250_000, 'is killed', []],
  ['began in the segment before', 900_000, 600_000, 250_000, 'reconnects', ['-Z', 'gzip:1']],
  ['began two segments before', 900_000, 3_000_000, 2_300_000, 'reconnects', []],
  ['began two segments before', 900_000, 3_000_000, 2_300_000, 'is killed', []],
] as const)(
  'damage in a record that %s (at %i, %i bytes, %i come) heals though the receiver %s before its end %j',
  async (_where, before, length, come, how, args) => {
    const server = keep(await PostgresServer.create({ major: MAJORS.at(-1)!, archive: true }));
    const proxy = keep(await TcpProxy.listen(server.port));
    const directory = archiveDirectory();
    const start = () => keep(receive(directory, proxy.conninfo(), ['--synchronous', ...args]));
    let run = start();
    await run.waitForOutput(/starting log streaming/);
    await server.switchWal();
    await writeRecord(server, before);
    await waitHealed(directory, server);

    const begin = await server.currentLsn();
    proxy.flipBit(20_000);
    proxy.after(come, how === 'is killed' ? 'stall' : 'cut');
    await writeRecord(server, length);
    if (how === 'is killed') {
      // No sooner: the damaged bytes are stored.
      await waitFor(
        () => proxy.flipped && nonZeroAt(directory, begin + BigInt(come - 100_000), server),
      );
      await run.stop('SIGKILL');
      proxy.resume();
      run = start();
    }
    await waitFor(() => proxy.flipped && proxy.accepted > 1, { what: 'a second connection' });
    await waitHealed(directory, server);
    await writeWal(server, 1_200_000);
    await waitHealed(directory, server);
    // That a new file takes what a complete one was to hold is no loss.
    expect(run.stderr).not.toMatch(/had lost acknowledged WAL/);
    expect(await run.stop()).toEqual({ code: 0, signal: null });
  },
);
