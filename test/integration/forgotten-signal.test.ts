import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { readText } from '../docs/documents.js';
import { disposer } from '../support/cleanup.js';
import { OUTER_MAJORS, PostgresServer } from '../support/postgres.js';
import { archiveDirectory, receive, waitEqual } from '../support/receiving.js';
import { handOver, walkeepDone } from '../support/restoring.js';

// What docs/restore.md says of a restored server whose recovery.signal is not there when it is started.

const keep = disposer();
/** Without a signal file PostgreSQL does not look into the archive, whatever the settings say. */
const NO_CHECKPOINT = 'could not locate required checkpoint record';

test.each(OUTER_MAJORS)('PostgreSQL %i without recovery.signal', async (major) => {
  const server = keep(await PostgresServer.create({ major }));
  const archive = archiveDirectory();
  await server.sql("SELECT pg_create_physical_replication_slot('s', true)");
  const receiver = keep(receive(archive, server.conninfo(), ['-S', 's', '--synchronous']));
  await receiver.waitForOutput(/starting log streaming/);
  await server.sql('CREATE TABLE t AS SELECT 1 AS n');
  const take = async (...args: string[]): Promise<string> => {
    const { stdout } = await walkeepDone([
      'backup',
      '--json',
      ...args,
      '-d',
      server.conninfo(),
      archive,
    ]);
    return JSON.parse(stdout.trim().split('\n').at(-1) as string).id;
  };
  const bare = await take();
  const withWal = await take('--wal', 'include');
  await server.sql('INSERT INTO t VALUES (2)');
  await waitEqual(archive, server);
  expect((await receiver.stop()).code).toBe(0);
  await server.stop();
  handOver(archive);
  const forgotten = async (backup: string) =>
    keep(
      await server.createRestored(async (dataDir) => {
        await walkeepDone(['restore', '--backup', backup, archive, dataDir]);
        rmSync(join(dataDir, 'recovery.signal'));
      }),
    );

  const without = await forgotten(bare);
  without.spawn();
  await without.waitStopped();
  expect(await without.log()).toContain(NO_CHECKPOINT);
  expect(readText('docs/restore.md')).toContain(NO_CHECKPOINT);

  // Up, on the timeline of the lost server, and what was committed behind the backup is not there.
  const started = await forgotten(withWal);
  await started.start();
  const [row] = await started.sql(
    `SELECT pg_is_in_recovery() AS recovering, (SELECT array_agg(n) FROM t) AS rows,
            (SELECT timeline_id FROM pg_control_checkpoint()) AS timeline`,
  );
  expect(row).toEqual({ recovering: false, rows: [1], timeline: 1 });
});
