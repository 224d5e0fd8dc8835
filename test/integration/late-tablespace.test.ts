import { mkdirSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { rehearse } from '../../src/rehearse/rehearse.js';
import { binDir } from '../support/binaries.js';
import { disposer } from '../support/cleanup.js';
import { MAJORS, type Major, PostgresServer } from '../support/postgres.js';
import { archiveDirectory, receive, waitEqual } from '../support/receiving.js';
import { handOver, walkeepDone } from '../support/restoring.js';
import { giveToServer, scratchDir, serverUser } from '../support/scratch.js';
import { backupOf } from '../support/taken-backup.js';
import { waitFor } from '../support/wait.js';

vi.setConfig({ testTimeout: 180_000 });

const keep = disposer();
const MAJOR: Major = MAJORS.includes(17) ? 17 : (MAJORS[0] as Major);

test('a tablespace that was made after the backup needs its directory, and no more', async () => {
  const server = keep(await PostgresServer.create({ major: MAJOR }));
  const archive = archiveDirectory();
  const receiver = keep(receive(archive, server.conninfo()));
  await receiver.waitForOutput(/starting log streaming/);
  await backupOf(server, archive, { compression: { method: 'gzip' } });
  const space = join(server.dir, 'late');
  mkdirSync(space);
  giveToServer(space);
  await server.sql(`CREATE TABLESPACE late LOCATION '${space}'`);
  await server.sql('CREATE TABLE t TABLESPACE late AS SELECT generate_series(1, 1000) AS i');
  await waitEqual(archive, server);
  await server.kill9();
  await receiver.stop();
  handOver(archive);
  // Here the directory is that of the server that it was made on.
  const refused = await rehearse({
    ...{ places: [archive], pgBin: binDir(MAJOR), scratch: scratchDir('scratch') },
    ...(serverUser.uid === undefined ? {} : { runAs: String(serverUser.uid) }),
  });
  expect(refused).toMatchObject({ outcome: 'unknown', steps: {} });
  expect(refused.problem?.message).toMatch(/^tablespace \d+ was made after the backup, at "/);
  expect(refused.problem?.message).toContain(space);
  // Another machine has no such directory.
  renameSync(space, `${space}.lost`);
  const restored = keep(
    await server.createRestored(async (dataDir) => {
      await walkeepDone(['restore', archive, dataDir]);
    }),
  );
  // It may take connections before it comes to that.
  await restored.start().catch(() => {});
  const told = `directory "${space}" does not exist`;
  await waitFor(async () => (await restored.log()).includes(told), { what: 'the end of recovery' });
  await restored.waitStopped();
  mkdirSync(space);
  giveToServer(space);
  await restored.start();
  await waitFor(
    async () => (await restored.sql('SELECT pg_is_in_recovery() AS r'))[0]?.r === false,
    { what: 'the end of recovery' },
  );
  expect((await restored.sql('SELECT count(*)::int AS n FROM t'))[0]?.n).toBe(1000);
});
