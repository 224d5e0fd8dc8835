import { existsSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { disposer } from '../support/cleanup.js';
import { nodeWithoutHardLinks } from '../support/no-links.js';
import { MAJORS, PostgresServer } from '../support/postgres.js';
import { archiveDirectory, PROGRAMS, receive, waitEqual, writeWal } from '../support/receiving.js';

const keep = disposer();
const major = MAJORS.at(-1)!;

test.each(PROGRAMS)('%s is kept out of a directory in use, the first goes on', async (program) => {
  const server = keep(await PostgresServer.create({ major, archive: true }));
  const directory = archiveDirectory();
  const first = keep(receive(directory, server.conninfo()));
  await first.waitForOutput(/starting log streaming/);
  await writeWal(server, 300_000);
  const second = keep(receive(directory, server.conninfo(), [], { program }));
  expect((await second.exit).code).toBe(1);
  const lines = second.stderr.trim().split('\n');
  expect(lines[0]).toBe(
    `${program}: error: directory "${directory}" is in use by another receiver (pid ${first.pid} ` +
      `on host ${hostname()})`,
  );
  expect(lines[1]).toMatch(/hint: Stop that receiver first/);
  const rest = program === 'walkeep' ? ['walkeep: detail: code WK_LOCKED'] : [];
  expect(lines.slice(2)).toEqual(rest);

  await writeWal(server, 1_200_000);
  await waitEqual(directory, server);
  expect(first.stderr).not.toMatch(/error|warning/);
  expect(await first.stop()).toEqual({ code: 0, signal: null });
  expect(existsSync(join(directory, '.walkeep-lock'))).toBe(false);
});

test('the lock of a killed receiver is taken over at once', async () => {
  const server = keep(await PostgresServer.create({ major, archive: true }));
  const directory = archiveDirectory();
  for (let i = 0; i < 3; i++) {
    const run = keep(receive(directory, server.conninfo(), ['--synchronous']));
    await run.waitForOutput(/starting log streaming/);
    await writeWal(server, 400_000);
    await waitEqual(directory, server);
    await run.stop('SIGKILL');
    expect(existsSync(join(directory, '.walkeep-lock'))).toBe(true);
  }
  // Stopped while it hands over: the next one waits a moment for it instead of failing.
  const last = keep(receive(directory, server.conninfo()));
  await last.waitForOutput(/starting log streaming/);
  const next = keep(receive(directory, server.conninfo()));
  await last.stop();
  await next.waitForOutput(/starting log streaming/);
  await writeWal(server, 100_000);
  await waitEqual(directory, server);
  expect(await next.stop()).toEqual({ code: 0, signal: null });
});

test.each(PROGRAMS)('%s works without hard links', async (program) => {
  const server = keep(await PostgresServer.create({ major, archive: true }));
  const directory = archiveDirectory();
  const options = { program, nodeArgs: nodeWithoutHardLinks() };
  for (const end of ['SIGKILL', 'SIGINT'] as const) {
    const run = keep(receive(directory, server.conninfo(), ['--synchronous'], options));
    await run.waitForOutput(/starting log streaming/);
    await writeWal(server, 1_200_000);
    await waitEqual(directory, server);
    const second = keep(receive(directory, server.conninfo(), [], options));
    expect((await second.exit).code).toBe(1);
    expect(second.stderr).toMatch(/in use by another receiver/);
    expect(run.stderr).not.toMatch(/error|warning/);
    await run.stop(end);
  }
  expect(existsSync(join(directory, '.walkeep-lock'))).toBe(false);
});
