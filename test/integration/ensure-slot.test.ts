import { expect, test } from 'vitest';
import { disposer } from '../support/cleanup.js';
import { MAJORS, PostgresServer } from '../support/postgres.js';
import { signal } from '../support/processes.js';
import { archiveDirectory, receive, waitEqual, writeWal } from '../support/receiving.js';
import { waitFor } from '../support/wait.js';

const keep = disposer();

async function slotOf(server: PostgresServer) {
  const [row] = await server.sql(
    "SELECT wal_status AS status, restart_lsn AS restart FROM pg_replication_slots WHERE slot_name = 's'",
  );
  return row;
}

/** Loses the slot although the server still has all WAL: nothing is archived meanwhile. */
async function loseSlot(server: PostgresServer): Promise<void> {
  await server.configure({ wal_keep_size: '0', max_slot_wal_keep_size: '1MB' });
  await writeWal(server, 4_000_000);
  await waitFor(
    async () => {
      await server.sql('CHECKPOINT');
      return (await slotOf(server))?.status === 'lost';
    },
    { what: 'the slot to be lost' },
  );
  await server.configure({ wal_keep_size: '256MB', max_slot_wal_keep_size: '-1' });
}

test.each(MAJORS)('--ensure-slot: a slot that %i invalidated keeps WAL again', async (major) => {
  const server = keep(await PostgresServer.create({ major, archive: true }));
  const directory = archiveDirectory();
  const run = keep(receive(directory, server.conninfo(), ['-S', 's', '--ensure-slot']));
  await run.waitForOutput(/walkeep: created replication slot "s"\n[\s\S]*starting log streaming/);
  await writeWal(server, 300_000);
  await waitEqual(directory, server);
  const archiving = server.setting('archive_command');
  await server.configure({ archive_command: 'false' });
  signal(run.pid, 'SIGSTOP');
  await loseSlot(server);
  signal(run.pid, 'SIGCONT');
  await server.configure({ archive_command: archiving });
  await waitFor(async () => (await slotOf(server))?.status === 'reserved', {
    what: 'the slot to keep WAL',
  });
  await writeWal(server, 1_200_000);
  await waitEqual(directory, server);
  expect(await run.stop()).toEqual({ code: 0, signal: null });
  // 14 takes the slot up again by itself.
  const anew = /warning: replication slot "s" kept no WAL; it was dropped and created again\n/;
  if (major > 14) {
    expect(run.stderr).toMatch(anew);
    expect(run.stderr).toContain('walkeep: detail: code WK_SLOT\n');
  } else expect(run.stderr).not.toMatch(anew);
});

test.skipIf(!MAJORS.includes(18))('--ensure-slot: a slot that was idle for too long', async () => {
  const server = keep(await PostgresServer.create({ major: 18, archive: true }));
  const directory = archiveDirectory();
  const start = (...args: string[]) =>
    keep(receive(directory, server.conninfo(), ['-S', 's', ...args]));
  const first = start('--ensure-slot');
  await first.waitForOutput(/starting log streaming/);
  await writeWal(server, 300_000);
  await waitEqual(directory, server);
  await first.stop();
  await server.configure({ idle_replication_slot_timeout: '1s' });
  await waitFor(
    async () => {
      await server.sql('CHECKPOINT');
      const [row] = await server.sql('SELECT invalidation_reason AS why FROM pg_replication_slots');
      return row?.why === 'idle_timeout';
    },
    { what: 'the slot to be invalidated' },
  );
  await server.configure({ idle_replication_slot_timeout: '0' });
  // Nobody asked for another slot: said, and left to the operator.
  const plain = start();
  expect((await plain.exit).code).toBe(1);
  expect(plain.stderr).toMatch(/can no longer access replication slot "s"/);
  const second = start('--ensure-slot');
  await writeWal(server, 1_200_000);
  await waitEqual(directory, server);
  expect((await slotOf(server))?.status).toBe('reserved');
  expect(await second.stop()).toEqual({ code: 0, signal: null });
});

test('--ensure-slot: WAL that is gone stays the alarm', async () => {
  const server = keep(await PostgresServer.create({ major: MAJORS.at(-1)! }));
  const directory = archiveDirectory();
  const run = keep(receive(directory, server.conninfo(), ['-S', 's', '--ensure-slot']));
  await run.waitForOutput(/starting log streaming/);
  await writeWal(server, 300_000);
  await waitEqual(directory, server);
  await run.stop('SIGKILL');
  await loseSlot(server);
  const again = keep(receive(directory, server.conninfo(), ['-S', 's', '--ensure-slot']));
  expect((await again.exit).code).toBe(1);
  expect(again.stderr).toMatch(/error: .*requested WAL segment \w+ has already been removed/);
});
