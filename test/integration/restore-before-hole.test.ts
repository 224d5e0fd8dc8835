import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { formatLsn } from '../../src/lsn.js';
import { segmentFileName, segmentOf } from '../../src/wal/file-name.js';
import { disposer } from '../support/cleanup.js';
import { NUMBERED, NumberedRows, numbersOf } from '../support/numbered-rows.js';
import { PostgresServer } from '../support/postgres.js';
import { archiveDirectory, receive, waitEqual } from '../support/receiving.js';
import { handOver, walkeepDone } from '../support/restoring.js';
import { waitFor } from '../support/wait.js';

vi.setConfig({ testTimeout: 180_000 });

const keep = disposer();

// A server that reads ahead asks for the missing segment before it is at the target.
test('recovers to the last commit before a missing segment', async () => {
  const server = keep(await PostgresServer.create({ major: 18, settings: NUMBERED }));
  const archive = archiveDirectory();
  const receiver = keep(receive(archive, server.conninfo()));
  await receiver.waitForOutput(/starting log streaming/);
  const rows = new NumberedRows();
  await rows.prepare(server);
  await walkeepDone(['backup', '-d', server.conninfo(), archive]);
  await rows.add(server, 20, 1);
  await server.switchWal();
  const { n, before: commit } = rows.last;
  await rows.add(server, 4, 4);
  await waitEqual(archive, server);
  await receiver.stop();
  await server.stop();
  const { segmentSize } = server;
  const segment = segmentOf(commit, segmentSize) + 1n;
  rmSync(join(archive, segmentFileName(1, segment, segmentSize)));
  handOver(archive);
  const restored = keep(
    await server.createRestored(async (dataDir) => {
      await walkeepDone(['restore', '--to', formatLsn(commit), archive, dataDir]);
    }),
  );
  await restored.start();
  await waitFor(async () => {
    const [row] = await restored.sql('SELECT pg_get_wal_replay_pause_state() AS s');
    return row?.s === 'paused';
  });
  expect((await numbersOf(restored)).at(-1)).toBe(n);
});
