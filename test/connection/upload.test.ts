import { expect, test } from 'vitest';
import { ConnectionError, ProtocolError, ServerError, UsageError } from '../../src/errors.js';
import * as backend from '../support/backend-messages.js';
import { FakeWire } from './fake-wire.js';
import { rejection } from './fixtures.js';

const MANIFEST = Buffer.alloc(150_000, 'manifest ');
const DONE = Buffer.concat([backend.commandComplete('UPLOAD_MANIFEST'), backend.readyForQuery()]);

/** The messages behind the command, by their types, and the bytes of CopyData. */
function sent(wire: FakeWire): { types: string; content: Buffer } {
  const bytes = Buffer.concat(wire.written);
  const content: Buffer[] = [];
  let types = '';
  for (let at = 0; at < bytes.length; ) {
    const type = bytes.toString('latin1', at, at + 1);
    const end = at + 1 + bytes.readUInt32BE(at + 1);
    types += type;
    if (type === 'd') content.push(bytes.subarray(at + 5, end));
    at = end;
  }
  return { types, content: Buffer.concat(content) };
}

test('a manifest is sent when the server asks for it, in pieces', async () => {
  const { wire, connection } = FakeWire.connect('17.10');
  const done = connection.uploadManifest(MANIFEST);
  expect(sent(wire).types).toBe('Q');
  wire.push(backend.copyIn());
  expect(sent(wire)).toEqual({ types: 'Qdddc', content: MANIFEST });
  wire.push(DONE);
  await done;
  // The session is free again.
  const next = connection.query('x');
  wire.push(backend.commandComplete('x'), backend.readyForQuery());
  await next;
});

test('a server that refuses it before or behind its bytes is heard to its end', async () => {
  for (const first of [Buffer.alloc(0), backend.copyIn()]) {
    const { wire, connection } = FakeWire.connect('17.10');
    const done = rejection<ServerError>(connection.uploadManifest(MANIFEST));
    wire.push(first, backend.errorResponse('22023', 'wrong system'), backend.readyForQuery());
    const error = await done;
    expect(error).toBeInstanceOf(ServerError);
    expect(error.message).toBe('could not upload the manifest: ERROR:  wrong system');
    expect(connection.closed).toBe(false);
  }
});

test.each([
  ['no COPY', [DONE]],
  ['two COPYs', [backend.copyIn(), backend.copyIn()]],
  ['an end without a result', [backend.copyIn(), backend.readyForQuery()]],
  ['two results', [backend.copyIn(), backend.commandComplete('x'), backend.commandComplete('x')]],
  ['rows', [backend.copyIn(), backend.rowDescription(['a'])]],
  ['another COPY', [backend.copyOut()]],
])('%s is no answer', async (_, answer) => {
  const { wire, connection } = FakeWire.connect('17.10');
  const done = rejection(connection.uploadManifest(MANIFEST));
  wire.push(...answer);
  expect(await done).toBeInstanceOf(ProtocolError);
  expect(connection.closed).toBe(true);
});

test('nothing is sent to a server that has no such command, or behind the end', async () => {
  const old = FakeWire.connect('16.9');
  expect(await rejection(old.connection.uploadManifest(MANIFEST))).toBeInstanceOf(UsageError);
  expect(old.wire.written).toEqual([]);
  const { wire, connection } = FakeWire.connect('18.4');
  const controller = new AbortController();
  const done = rejection<Error>(connection.uploadManifest(MANIFEST, controller.signal));
  controller.abort(new Error('enough'));
  expect((await done).message).toBe('enough');
  expect(wire.destroyed).toBe(true);
  const lost = FakeWire.connect('18.4');
  const gone = rejection(lost.connection.uploadManifest(MANIFEST));
  lost.wire.lose(new ConnectionError('gone'));
  expect(await gone).toBeInstanceOf(ConnectionError);
});
