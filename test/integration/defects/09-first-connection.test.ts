import { expect, test } from 'vitest';
import { disposer } from '../../support/cleanup.js';
import { MAJORS, PostgresServer } from '../../support/postgres.js';
import { archiveDirectory, receive, waitEqual, writeWal } from '../../support/receiving.js';
import { freePort } from '../../support/server-config.js';
import { waitFor } from '../../support/wait.js';

const keep = disposer();

test('walkeep waits for a server that comes up later, and is told to by no flag', async () => {
  const server = keep(
    await PostgresServer.create({ major: MAJORS.at(-1)!, archive: true, start: false }),
  );
  const directory = archiveDirectory();
  const run = keep(receive(directory, server.conninfo()));
  await waitFor(() => (run.stderr.match(/to try again/g)?.length ?? 0) >= 3);
  expect(run.stderr).toMatch(/Connection refused/);
  await server.start();
  await run.waitForOutput(/starting log streaming/);
  await writeWal(server, 1_200_000);
  await waitEqual(directory, server);
  expect(await run.stop()).toEqual({ code: 0, signal: null });
  const waits = [...run.stderr.matchAll(/waiting (\S+) seconds? to try again/g)].map((m) => m[1]);
  expect(new Set(waits).size, `delays with jitter: ${waits}`).toBeGreaterThan(1);
});

test.each([
  ['walkeep', ['-n']],
  ['pg_receivewal', []],
  ['pg_receivewal', ['-n']],
] as const)('%s %j ends with exit code 1', async (program, args) => {
  const conninfo = `host=127.0.0.1 port=${await freePort()} user=postgres`;
  const run = keep(receive(archiveDirectory(), conninfo, [...args], { program }));
  expect((await run.exit).code).toBe(1);
  expect(run.stderr).toMatch(/error: .*Connection refused/);
  expect(run.stderr).not.toMatch(/try again/);
});
