import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { WalkeepError } from '../../src/errors.js';
import { WalReceiver } from '../../src/index.js';
import { formatLsn } from '../../src/lsn.js';
import { START, WAL } from '../fuzz/stream-peer.js';
import { SEGMENT, SYSTEM_ID } from '../simulation/model-wal.js';
import { disposer } from '../support/cleanup.js';
import { archiveDirectory } from '../support/receiving.js';
import {
  backend,
  type Identity,
  type Script,
  type ScriptedConnection,
  ScriptedServer,
} from '../support/scripted-server.js';
import { waitFor } from '../support/wait.js';

const keep = disposer();
const identity: Identity = {
  systemId: String(SYSTEM_ID),
  segmentSizeMb: 1,
  flushLsn: BigInt(START),
};
/** Where the server turns hostile: inside a record. */
const TURN = START + 300_001;

/** The true WAL from one place to another, both offsets in the WAL. */
function walBetween(from: number, to: number): Buffer {
  const parts: Buffer[] = [];
  for (let at = from; at < to; ) {
    const n = Math.min(to - at, SEGMENT - (at % SEGMENT));
    const within = at % SEGMENT;
    parts.push(WAL.segment(Math.floor(at / SEGMENT)).subarray(within, within + n));
    at += n;
  }
  return Buffer.concat(parts);
}

/** XLogData messages with the true WAL. */
function messages(from: number, to: number, size = 100_000): Buffer {
  const parts: Buffer[] = [];
  for (let at = from; at < to; at += size) {
    const end = Math.min(at + size, to);
    parts.push(backend.xlogData(BigInt(at), walBetween(at, end), BigInt(WAL.end)));
  }
  return Buffer.concat(parts);
}

async function honest(c: ScriptedConnection): Promise<void> {
  const { lsn } = await c.startStream(identity);
  c.send(messages(Number(lsn), WAL.end));
}

/** The archive is the server's WAL and nothing else. */
function expectArchive(directory: string): void {
  const files = readdirSync(directory).filter((name) => !name.startsWith('.'));
  expect(files.sort()).toEqual(['000000010000000000000005', '000000010000000000000006.partial']);
  const [first, second] = files.map((name) => readFileSync(join(directory, name)));
  expect(first?.equals(walBetween(START, START + SEGMENT))).toBe(true);
  const last = walBetween(START + SEGMENT, WAL.end);
  expect(second?.subarray(0, last.length).equals(last)).toBe(true);
  expect(second?.subarray(last.length).every((byte) => byte === 0)).toBe(true);
}

/** Receives from `first`, then from an honest server, until all is there. Gives what went wrong. */
async function survive(first: Script): Promise<{ errors: WalkeepError[]; server: ScriptedServer }> {
  const server = keep(
    await ScriptedServer.listen((c, index) => (index === 0 ? first(c, index) : honest(c))),
  );
  const directory = archiveDirectory();
  const abort = new AbortController();
  const errors: WalkeepError[] = [];
  const receiver = new WalReceiver({
    connection: server.conninfo({ sslmode: 'disable' }),
    directory,
    synchronous: true,
    checkSyncStandby: false,
    retryDelay: 1,
  });
  receiver.on('disconnect', ({ error }) => errors.push(error));
  const run = receiver.run(abort.signal);
  const over = run.then(() => true);
  const all = () =>
    server.connections.some((c) => c.statusReplies.some((s) => s.flush === BigInt(WAL.end)));
  await Promise.race([waitFor(all), over]);
  // From here on connections end in the middle of a script, and that is right.
  expect(server.errors).toEqual([]);
  // The scripted server does not answer CopyDone: its end of the connection does.
  for (const c of server.connections) c.close();
  abort.abort();
  await run;
  expectArchive(directory);
  for (const c of server.connections) {
    for (const { write, flush } of c.statusReplies) expect(flush).toBeLessThanOrEqual(write);
  }
  return { errors, server };
}

const at = (lsn: number, bytes: Uint8Array = Buffer.alloc(100, 0x5a)) =>
  backend.xlogData(BigInt(lsn), bytes);
const damaged = () => {
  const bytes = walBetween(TURN, TURN + 50_000);
  bytes[25_000] = (bytes[25_000] ?? 0) ^ 1;
  return bytes;
};
const fatal = (sqlstate: string) => backend.errorResponse(sqlstate, 'told to go', {}, 'FATAL');
const announced = (type: string, length: number) => backend.message(type, Buffer.alloc(0), length);

describe('a server that turns hostile in the stream: a typed error, then recovery', () => {
  test.each<[string, Uint8Array[], string]>([
    ['a gap', [at(TURN + 100)], 'WK_STREAM_POSITION'],
    ['a gap of terabytes', [at(TURN + 2 ** 45)], 'WK_STREAM_POSITION'],
    ['one byte too far', [at(TURN + 1)], 'WK_STREAM_POSITION'],
    ['one byte back', [at(TURN - 1)], 'WK_STREAM_POSITION'],
    ['a repeat of what was sent last', [messages(TURN - 1000, TURN)], 'WK_STREAM_POSITION'],
    ['the start again', [messages(START, START + 8192)], 'WK_STREAM_POSITION'],
    ['WAL at 0/0', [at(0)], 'WK_STREAM_POSITION'],
    ['WAL at FFFFFFFF/FFFFFFFF', [backend.xlogData(-1n, Buffer.alloc(9))], 'WK_STREAM_POSITION'],
    ['damaged WAL', [at(TURN, damaged())], 'WK_CORRUPT_WAL'],
    ['zeros for WAL', [at(TURN, Buffer.alloc(20_000))], 'WK_CORRUPT_WAL'],
    ['a message of 2 GB', [announced('d', 0x7fffffff)], 'WK_PROTOCOL'],
    ['a message of negative length', [announced('d', -1)], 'WK_PROTOCOL'],
    ['a message shorter than its length', [announced('d', 3)], 'WK_PROTOCOL'],
    ['a keepalive that is too short', [backend.copyData(Buffer.from('k1234'))], 'WK_PROTOCOL'],
    ['XLogData that is too short', [backend.copyData(Buffer.from('w1234'))], 'WK_PROTOCOL'],
    ['an unknown streaming message', [backend.copyData(Buffer.from('x1234'))], 'WK_PROTOCOL'],
    ['a row', [backend.dataRow(['2', '0/5000000'])], 'WK_PROTOCOL'],
    ['ReadyForQuery', [backend.readyForQuery()], 'WK_PROTOCOL'],
    ['a login', [backend.authenticationOk()], 'WK_PROTOCOL'],
    ['garbage', [Buffer.alloc(5000, 0x99)], 'WK_PROTOCOL'],
    ['an error', [fatal('57P01')], 'WK_SERVER'],
    ['an error, and WAL behind it', [fatal('57P01'), messages(TURN, TURN + 10)], 'WK_SERVER'],
    ['a refused login', [fatal('28P01')], 'WK_AUTHENTICATION'],
    ['a huge error', [backend.errorResponse('XX000', 'x'.repeat(2 ** 23))], 'WK_SERVER'],
    ['an error without an end', [backend.message('E', Buffer.from('SERROR'))], 'WK_PROTOCOL'],
    [
      'a flood of parameters',
      Array.from({ length: 1500 }, (_, i) => backend.parameterStatus(`p${i}`, 'x')),
      'WK_PROTOCOL',
    ],
  ])('%s', async (_what, bytes, code) => {
    const { errors } = await survive(async (c) => {
      await c.startStream(identity);
      c.send(messages(START, TURN));
      await c.waitStatus((s) => s.flush === BigInt(TURN));
      c.send(...bytes);
    });
    expect(errors.map((e) => e.code)).toEqual([code]);
    expect(errors[0]?.message).not.toBe('');
    // Nothing of it was acknowledged, and the error says where it stands.
    if (code === 'WK_STREAM_POSITION') expect(errors[0]?.lsn).toBe(BigInt(TURN));
  });

  test('an error in one read with WAL, which is taken first', async () => {
    const { errors, server } = await survive(async (c) => {
      await c.startStream(identity);
      c.send(messages(START, START + SEGMENT), fatal('57P01'));
    });
    expect(errors.map((e) => e.code)).toEqual(['WK_SERVER']);
    const starts = server.connections.map((c) => c.queries.at(-1));
    expect(starts[1]).toContain(formatLsn(BigInt(START + SEGMENT)));
  });

  test('errors right behind CopyBothResponse', async () => {
    const { errors } = await survive(async (c) => {
      await c.accept();
      await c.serve(identity);
      c.send(backend.copyBoth(), fatal('57P01'));
      c.close();
    });
    expect(errors.map((e) => e.code)).toEqual(['WK_SERVER']);
  });

  test.each([
    ['before any WAL', START],
    ['inside a page header', START + 8192 + 10],
    ['inside a record', TURN],
    ['on a page boundary', START + 16 * 8192],
    ['one byte before the end of a segment', START + SEGMENT - 1],
    ['on a segment boundary', START + SEGMENT],
    ['one byte behind a segment boundary', START + SEGMENT + 1],
    ['at the end', WAL.end],
  ])('CopyDone %s', async (_where, place) => {
    const { errors } = await survive(async (c) => {
      await c.startStream(identity);
      c.send(messages(START, place));
      await c.endStream(backend.commandComplete('START_REPLICATION'), backend.readyForQuery());
    });
    // With all of it there, what happens next does not matter.
    const expected = place === WAL.end ? [[], ['WK_CONNECTION']] : [['WK_CONNECTION']];
    expect(expected).toContainEqual(errors.map((e) => e.code));
  });
});

describe('unlucky reads', () => {
  test('every byte comes alone, from the login to the last WAL of a while', async () => {
    const { errors } = await survive(async (c) => {
      const { socket } = c;
      const write = socket.write.bind(socket);
      // A write of each byte, with the kernel told not to gather them.
      socket.setNoDelay(true);
      socket.write = ((bytes: Buffer) => {
        for (const byte of bytes) write(Uint8Array.of(byte));
        return true;
      }) as typeof socket.write;
      await c.startStream(identity);
      c.send(messages(START, START + 20_000, 3000), backend.keepalive(BigInt(WAL.end), true));
      await c.waitStatus((s) => s.flush === BigInt(START + 20_000));
      socket.write = write;
      c.send(messages(START + 20_000, WAL.end));
    });
    expect(errors).toEqual([]);
  });

  test('messages cut in two at every place', async () => {
    const step = (from: number) =>
      Buffer.concat([
        messages(from, from + 60),
        backend.keepalive(BigInt(from), true),
        messages(from + 60, from + 61),
      ]);
    const { errors } = await survive(async (c) => {
      await c.startStream(identity);
      // The same WAL cannot be sent twice: each cut goes on where the last one ended.
      let from = START;
      for (let place = 1; place < step(START).length; place++) {
        const bytes = step(from);
        const replies = c.statusReplies.length;
        c.send(bytes.subarray(0, place));
        // Reads in between: the second half comes alone.
        await new Promise((resolve) => setImmediate(resolve));
        c.send(bytes.subarray(place));
        from += 61;
        if (place % 20 === 0) await waitFor(() => c.statusReplies.length > replies);
      }
      c.send(messages(from, WAL.end));
    });
    expect(errors).toEqual([]);
  });

  test('a storm of keepalives: one reply for all that a read brought', async () => {
    const STORM = 200_000;
    const { errors, server } = await survive(async (c) => {
      await c.startStream(identity);
      const part = Buffer.concat(
        Array.from({ length: STORM / 100 }, () => backend.keepalive(BigInt(START), true)),
      );
      for (let i = 0; i < 100; i++) {
        await new Promise<void>((resolve) => c.socket.write(part, () => resolve()));
      }
      c.send(messages(START, WAL.end));
    });
    expect(errors).toEqual([]);
    expect(server.connections[0]?.statusReplies.length).toBeLessThan(STORM / 20);
  });

  test('a position of the server that cannot be', async () => {
    const { errors } = await survive(async (c) => {
      await c.startStream(identity);
      for (const end of [0n, 1n, 1n << 63n, (1n << 64n) - 1n]) c.send(backend.keepalive(end, true));
      const half = walBetween(START, TURN);
      c.send(backend.xlogData(BigInt(START), half, (1n << 64n) - 1n));
      await c.waitStatus((s) => s.flush === BigInt(TURN));
      c.send(messages(TURN, WAL.end));
    });
    expect(errors).toEqual([]);
  });
});
