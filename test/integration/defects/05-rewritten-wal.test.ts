import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { disposer } from '../../support/cleanup.js';
import { MAJORS, PostgresServer } from '../../support/postgres.js';
import {
  archiveDirectory,
  PROGRAMS,
  receive,
  waitEqual,
  writeWal,
} from '../../support/receiving.js';

const keep = disposer();

// A restored copy of the cluster, or a disk that lost what it had confirmed: the same system
// identifier and timeline, other WAL at the same addresses.
test.each(PROGRAMS)('%s does not overwrite what it acknowledged', async (program) => {
  const server = keep(await PostgresServer.create({ major: MAJORS.at(-1)! }));
  await server.switchWal();
  await server.stop();
  const copy = join(server.dir, 'copy');
  execFileSync('cp', ['-a', server.dataDir, copy]);
  await server.start();

  const directory = archiveDirectory();
  const run = keep(receive(directory, server.conninfo(), ['--synchronous'], { program }));
  await run.waitForOutput(/starting log streaming/);
  await writeWal(server, 300_000);
  await waitEqual(directory, server);
  await run.stop();
  const name = readdirSync(directory).find((n) => n.endsWith('.partial')) as string;
  const before = readFileSync(join(directory, name));

  await server.stop();
  execFileSync('rm', ['-rf', server.dataDir]);
  execFileSync('mv', [copy, server.dataDir]);
  await server.start();
  await writeWal(server, 600_000);
  const again = keep(receive(directory, server.conninfo(), ['--synchronous'], { program }));
  expect((await again.exit).code).toBe(1);
  expect(again.stderr).toMatch(
    /error: the server sent other bytes at 0\/\w+ than those acknowledged as flushed up to 0\/\w+/,
  );
  expect(readFileSync(join(directory, name)).equals(before)).toBe(true);
});
