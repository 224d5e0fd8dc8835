import { describe, expect, test } from 'vitest';
import { connect } from '../../src/connection/connect.js';
import type { WalStream } from '../../src/connection/wal-stream.js';
import { ProtocolError } from '../../src/errors.js';
import type { Lsn } from '../../src/lsn.js';
import { Recorder, settingsFor } from '../connection/fixtures.js';
import { disposer } from '../support/cleanup.js';
import { backend, ScriptedServer } from '../support/scripted-server.js';

const keep = disposer();
const start = 0x300_0000n as Lsn;
const none = 'START_REPLICATION';
const error = backend.errorResponse('XX000', 'no');
const row = Buffer.concat([
  backend.rowDescription(['next_tli', 'next_tli_startpos']),
  backend.dataRow(['2', '0/3500000']),
]);

/** Opens a connection to a server that answers START_REPLICATION with these bytes. */
async function streamOf(...answer: Uint8Array[]) {
  const server = keep(
    await ScriptedServer.listen(async (c) => {
      await c.accept();
      await c.serve();
      c.send(...answer);
    }),
  );
  const connection = await connect(settingsFor('127.0.0.1', server.port));
  keep({ [Symbol.asyncDispose]: async () => connection.destroy() });
  const recorder = new Recorder();
  const started = connection.startReplication({ startLsn: start, timeline: 1 }, recorder);
  return { connection, recorder, started, server };
}

describe('messages out of their order in a stream: the handler is told, the connection is gone', () => {
  test.each<[string, Uint8Array[]]>([
    ['ReadyForQuery', [backend.readyForQuery()]],
    ['ReadyForQuery and CopyDone', [backend.readyForQuery(), backend.copyDone()]],
    ['ReadyForQuery and an error', [backend.readyForQuery(), error]],
    ['a second CopyBothResponse', [backend.copyBoth()]],
    ['rows before CopyDone', [row]],
    ['CopyInResponse', [backend.message('G', Buffer.from([0, 0, 0]))]],
    ['CopyOutResponse', [backend.message('H', Buffer.from([0, 0, 0]))]],
    ['an authentication request', [backend.authentication(3)]],
    ['BackendKeyData', [backend.backendKeyData()]],
    ['CopyData that is no streaming message', [backend.copyData(Buffer.from('x'))]],
    ['an empty CopyData', [backend.copyData(Buffer.alloc(0))]],
    ['WAL behind CopyDone', [backend.copyDone(), backend.xlogData(start, Buffer.alloc(1))]],
  ])('%s', async (what, bytes) => {
    const { connection, recorder, started } = await streamOf(backend.copyBoth(), ...bytes);
    const stream = await started;
    await recorder.until(() => recorder.failure !== undefined || connection.closed);
    expect(connection.closed).toBe(true);
    if (what === 'WAL behind CopyDone') {
      // The end was told before; what follows it breaks the connection.
      if ('finish' in stream) await expect(stream.finish()).rejects.toBeInstanceOf(ProtocolError);
      return;
    }
    expect(recorder.failure).toBeInstanceOf(ProtocolError);
    expect(recorder.failures).toBe(1);
    expect(recorder.serverDone).toBe(false);
  });

  test.each<[string, Uint8Array[]]>([
    ['behind CommandComplete', [backend.commandComplete(none), row, backend.copyBoth()]],
    ['behind an error', [error, backend.copyBoth()]],
    ['behind a row', [row, backend.copyBoth()]],
  ])('CopyBothResponse %s starts no stream', async (_what, bytes) => {
    const { connection, recorder, started } = await streamOf(...bytes);
    const outcome = await started.catch((e) => e);
    expect(outcome).not.toHaveProperty('finish');
    expect(connection.closed).toBe(true);
    expect(recorder.failures).toBe(0);
  });

  test.each<[string, Uint8Array[]]>([
    ['a row of other values', [backend.resultSet({ next_tli: 'x', next_tli_startpos: 'y' })]],
    ['a row of one value', [backend.resultSet({ next_tli: '2' })]],
    ['timeline 0', [backend.resultSet({ next_tli: '0', next_tli_startpos: '0/0' })]],
    ['two rows', [row, backend.dataRow(['3', '0/4000000']), backend.commandComplete(none)]],
    ['a row without columns', [backend.dataRow(['2', '0/1']), backend.commandComplete(none)]],
  ])('a stream that ends with %s', async (_what, bytes) => {
    for (const close of [false, true]) {
      // With a connection that ends before ReadyForQuery the result has to do.
      const all = Buffer.concat([backend.copyDone(), ...bytes]);
      const answer = close ? all.subarray(0, all.length - (bytes.length > 1 ? 0 : 6)) : all;
      const { connection, started, server } = await streamOf(
        ...[backend.copyBoth(), answer],
        ...(close || bytes.length === 1 ? [] : [backend.readyForQuery()]),
      );
      const stream = (await started) as WalStream;
      if (close) server.connections[0]?.close();
      await expect(stream.finish()).rejects.toBeInstanceOf(ProtocolError);
      connection.destroy();
    }
  });
});
