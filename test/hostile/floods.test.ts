import { expect, test } from 'vitest';
import { connect } from '../../src/connection/connect.js';
import { ResultBuilder } from '../../src/connection/operation.js';
import type { WalStream } from '../../src/connection/wal-stream.js';
import { ProtocolError } from '../../src/errors.js';
import type { Lsn } from '../../src/lsn.js';
import { Recorder, rejection, settingsFor } from '../connection/fixtures.js';
import { disposer } from '../support/cleanup.js';
import { backend, type ScriptedConnection, ScriptedServer } from '../support/scripted-server.js';
import { waitFor } from '../support/wait.js';

const keep = disposer();
const start = 0x300_0000n as Lsn;
const open = async (script: (c: ScriptedConnection) => Promise<void>) => {
  const server = keep(await ScriptedServer.listen(script));
  return connect(settingsFor('127.0.0.1', server.port));
};

/** Sends `bytes` over and over, as fast as the client reads, until it goes. */
async function flood(c: ScriptedConnection, bytes: (i: number) => Uint8Array): Promise<void> {
  for (let i = 0; !c.ended && !c.socket.destroyed; i++) {
    const part = bytes(i);
    await new Promise<void>((resolve) => c.socket.write(part, () => resolve()));
  }
}

const repeat = (message: Uint8Array, times: number) =>
  Buffer.concat(Array.from({ length: times }, () => message));

test.each<[string, (Buffer | null)[]]>([
  ['no', []],
  ['one empty', [Buffer.alloc(0)]],
  ['a thousand null', Array.from({ length: 1000 }, () => null)],
])('rows with %s value: what they take is bounded, not only what was sent', (_what, values) => {
  const builder = new ResultBuilder();
  const fill = () => {
    for (let rows = 0; rows < 1_000_000; rows++) {
      builder.add({ name: 'dataRow', values, byteLength: 7 + 4 * values.length });
    }
  };
  expect(fill).toThrow(ProtocolError);
  const { length } = builder.build().rows;
  // An object takes some 100 bytes: of 64 MB no more than this is left.
  expect(length * (1 + values.length)).toBeLessThan(600_000);
});

test('a flood of rows in an answer', async () => {
  const rows = repeat(backend.dataRow([]), 20_000);
  const connection = await open(async (c) => {
    await c.accept();
    await c.nextQuery();
    await flood(c, () => rows);
  });
  const error = await rejection(connection.query('X'));
  expect(error).toBeInstanceOf(ProtocolError);
  expect(error.message).toBe('result of a command is too large');
});

test('a flood of parameters, also of few and long ones, also of one name', async () => {
  const long = 'x'.repeat(50_000);
  const many = open((c) => flood(c, (i) => backend.parameterStatus(`p${i}`, 'x')));
  const few = open((c) => flood(c, (i) => backend.parameterStatus(`p${i}`, long)));
  for (const attempt of [many, few]) {
    const error = await rejection(attempt);
    expect(error).toBeInstanceOf(ProtocolError);
    expect(error.message).toMatch(/too many parameters reported by server$/);
  }
  // Behind the login messages may be longer.
  const late = await open(async (c) => {
    await c.accept();
    await c.nextQuery();
    await flood(c, (i) => backend.parameterStatus(`p${i}`, 'x'.repeat(300_000)));
  });
  await expect(late.query('X')).rejects.toBeInstanceOf(ProtocolError);
  expect(late.parameters.size).toBeLessThan(15);
  // Said again and again, one parameter takes no more room.
  const connection = await open(async (c) => {
    c.send(repeat(backend.parameterStatus('application_name', long), 100));
    await c.accept();
  });
  expect(connection.parameters.get('application_name')).toBe(long);
  connection.destroy();
});

test('a flood of messages of the login', async () => {
  const keys = repeat(backend.backendKeyData(), 5000);
  const error = await rejection(open((c) => flood(c, () => keys)));
  expect(error).toBeInstanceOf(ProtocolError);
});

test('notices without an end are told and not kept', async () => {
  const connection = await open(async (c) => {
    await c.accept();
    await c.nextQuery();
    for (let i = 0; i < 200; i++) c.send(repeat(backend.noticeResponse('x'.repeat(500)), 100));
    c.send(backend.resultSet({ x: '1' }));
  });
  expect((await connection.query('X')).rows).toEqual([[Buffer.from('1')]]);
  connection.destroy();
});

test('a huge error: typed, up to the largest message; beyond that the connection is given up', async () => {
  const text = 'x'.repeat(8 * 1024 * 1024);
  const connection = await open(async (c) => {
    await c.accept();
    await c.nextQuery();
    c.send(backend.errorResponse('XX000', text), backend.readyForQuery());
    await c.nextQuery();
    c.send(backend.message('E', Buffer.alloc(0), 17 * 1024 * 1024));
  });
  expect(await rejection(connection.query('X'))).toMatchObject({ code: 'WK_SERVER' });
  const error = await rejection(connection.query('X'));
  expect(error.message).toMatch(/^invalid length 17825792 of message type "E"/);
  // Before the login nobody may take so much.
  const early = await rejection(open(async (c) => c.send(backend.errorResponse('XX000', text))));
  expect(early).toBeInstanceOf(ProtocolError);
});

test('a storm of keepalives that all want a reply: replies are few, nothing piles up', async () => {
  const STORM = 200_000;
  const server = keep(
    await ScriptedServer.listen(async (c) => {
      await c.startStream();
      // Reads nothing meanwhile: what the client cannot send it must not keep.
      c.socket.pause();
      const part = repeat(backend.keepalive(start, true), STORM / 100);
      for (let i = 0; i < 100; i++) {
        await new Promise<void>((resolve) => c.socket.write(part, () => resolve()));
      }
      c.socket.resume();
      c.send(backend.keepalive(start + 1n, true));
    }),
  );
  const connection = await connect(settingsFor('127.0.0.1', server.port));
  const recorder = new Recorder();
  let asked = 0;
  let stream: WalStream | undefined;
  // StreamSession answers once for all that a read asked for; here even each one is answered.
  recorder.onKeepalive = () => {
    asked += 1;
    stream?.sendStatus({ write: start, flush: start, apply: 0n });
  };
  stream = (await connection.startReplication(
    { startLsn: start, timeline: 1 },
    recorder,
  )) as WalStream;
  await waitFor(() => asked === STORM + 1);
  const [peer] = server.connections;
  await waitFor(() => (peer?.statusReplies.length ?? 0) > 0);
  const unsent = connection['wire' as never] as { unsent: number };
  expect(unsent.unsent).toBeLessThan(65 * 1024);
  connection.destroy();
  expect(server.errors).toEqual([]);
});
