import { expect, test } from 'vitest';
import { disposer } from '../support/cleanup.js';
import { archiveDirectory, receive } from '../support/receiving.js';
import { backend, ScriptedServer } from '../support/scripted-server.js';
import { waitFor } from '../support/wait.js';
import { makeWal } from '../wal/synthetic.js';

// A server that says something else of itself than before: damage on the way, or another server.

const keep = disposer();
const wal = makeWal(Array.from({ length: 100 }, (_, n) => ({ body: Buffer.alloc(3001, n) })));

/** A server that says a system identifier by connection, and loses the first one after a while. */
async function listen(systemId: (index: number) => string) {
  const server = keep(
    await ScriptedServer.listen(async (c, index) => {
      const identity = { systemId: systemId(index), segmentSizeMb: 1, flushLsn: wal.start };
      const { lsn } = await c.startStream(identity);
      c.send(backend.xlogData(lsn, wal.bytes.subarray(Number(lsn - wal.start))));
      const end = wal.start + BigInt(wal.bytes.length);
      await waitFor(() => c.ended || c.statusReplies.some((s) => s.flush === end));
      if (index === 0) c.reset();
      else await c.nextOf('c').catch(() => {});
      c.close();
    }),
  );
  const conninfo = server.conninfo({ sslmode: 'disable' });
  const directory = archiveDirectory();
  return { server, directory, run: keep(receive(directory, conninfo, ['--synchronous'])) };
}

test('another system identifier, once, is asked about again', async () => {
  const { server, run } = await listen((index) => (index === 1 ? '1077' : '77'));
  const connection = await server.connection(2);
  await connection.waitStatus((s) => s.flush > wal.start);
  expect(await run.stop()).toEqual({ code: 0, signal: null });
  expect(run.stderr).toMatch(/error: .*system identifier 1077, .*\n(.*\n)?.*to try again/);
});

test('and ends the receiver when it stays', async () => {
  const { server, run } = await listen((index) => (index > 0 ? '1077' : '77'));
  expect(await run.exit).toEqual({ code: 1, signal: null });
  expect(server.connections).toHaveLength(3);
});

test('from the beginning it is not asked twice', async () => {
  const { server, directory, run } = await listen(() => '77');
  await (await server.connection(1)).waitStatus((s) => s.flush > wal.start);
  await run.stop();
  const other = keep(
    await ScriptedServer.listen(async (c) => {
      await c.startStream({ systemId: '1077', segmentSizeMb: 1, flushLsn: wal.start });
    }),
  );
  const again = keep(receive(directory, other.conninfo({ sslmode: 'disable' })));
  expect(await again.exit).toEqual({ code: 1, signal: null });
  expect(other.connections).toHaveLength(1);
});
