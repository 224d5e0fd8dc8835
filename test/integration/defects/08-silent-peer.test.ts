import { expect, test } from 'vitest';
import { disposer } from '../../support/cleanup.js';
import { MAJORS, PostgresServer } from '../../support/postgres.js';
import { archiveDirectory, receive, waitEqual, writeWal } from '../../support/receiving.js';
import { backend, ScriptedServer } from '../../support/scripted-server.js';
import { TcpProxy } from '../../support/tcp-proxy.js';
import { waitFor } from '../../support/wait.js';

// Under pg_receivewal's name the time is fixed at 30 s: the same code, too long for a test.
const keep = disposer();
const major = MAJORS.at(-1)!;
const ARGS = ['--receive-timeout', '1', '-s', '0'];

test('a peer that went silent without FIN is left, and streaming goes on', async () => {
  const server = keep(await PostgresServer.create({ major, archive: true }));
  const proxy = keep(await TcpProxy.listen(server.port));
  const directory = archiveDirectory();
  const conninfo = proxy.conninfo({ sslmode: 'disable' });
  const run = keep(receive(directory, conninfo, ARGS));
  await run.waitForOutput(/starting log streaming/);
  await writeWal(server, 300_000);
  await waitEqual(directory, server);

  proxy.stall();
  await writeWal(server, 300_000);
  await run.waitForOutput(/error: nothing was received from the server for 2 seconds/);
  proxy.cut();
  proxy.resume();
  await waitEqual(directory, server);
  expect(await run.stop()).toEqual({ code: 0, signal: null });
});

test('an idle server is asked, and keeps its connection when it answers', async () => {
  const start = 0x3000000n;
  const server = keep(
    await ScriptedServer.listen(async (c) => {
      await c.startStream();
      for (let answered = 0; ; answered++) {
        await waitFor(() => c.statusReplies.filter((r) => r.replyRequested).length > answered);
        c.send(backend.keepalive(start));
      }
    }),
  );
  const directory = archiveDirectory();
  // A machine that is busy for a moment answers late, too.
  const args = ['--receive-timeout', '3', '-s', '0'];
  const run = keep(receive(directory, server.conninfo({ sslmode: 'disable' }), args));
  const connection = await server.connection(0);
  // Far beyond the time after which silence would have ended it.
  await waitFor(() => connection.statusReplies.filter((r) => r.replyRequested).length >= 4, {
    timeoutMs: 50_000,
  });
  expect(server.connections).toHaveLength(1);
  expect(run.stderr).not.toMatch(/error/);
});

test('a server that is silent before the stream is left', async () => {
  const server = keep(
    await ScriptedServer.listen(async (c, index) => {
      await c.accept();
      if (index === 0) await c.nextQuery();
      else await c.serve();
    }),
  );
  const run = keep(receive(archiveDirectory(), server.conninfo({ sslmode: 'disable' }), ARGS));
  for (const index of [1, 2]) await server.connection(index);
  expect(run.stderr.match(/error: nothing was received from the server/g)).toHaveLength(2);
});
