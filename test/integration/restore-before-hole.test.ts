import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { formatLsn } from '../../src/lsn.js';
import { segmentFileName, segmentOf } from '../../src/wal/file-name.js';
import { disposer } from '../support/cleanup.js';
import {
  NUMBERED,
  type NumberedCommit,
  NumberedRows,
  numbersOf,
} from '../support/numbered-rows.js';
import { PostgresServer } from '../support/postgres.js';
import { archiveDirectory, receive, waitEqual, writeWal } from '../support/receiving.js';
import { handOver, walkeep, walkeepDone } from '../support/restoring.js';
import { waitFor } from '../support/wait.js';
import { flip } from '../support/wal-archive.js';

vi.setConfig({ testTimeout: 180_000 });

const keep = disposer();

/** A server's archive that was received while rows were added, the server stopped. */
async function received(add: (server: PostgresServer, rows: NumberedRows) => Promise<void>) {
  const server = keep(await PostgresServer.create({ major: 18, settings: NUMBERED }));
  const archive = archiveDirectory();
  const receiver = keep(receive(archive, server.conninfo()));
  await receiver.waitForOutput(/starting log streaming/);
  const rows = new NumberedRows();
  await rows.prepare(server);
  await walkeepDone(['backup', '-d', server.conninfo(), archive]);
  await add(server, rows);
  await waitEqual(archive, server);
  await receiver.stop();
  await server.stop();
  return { server, archive, rows };
}

/** The last number of a server that was restored to a target and pauses there. */
async function lastOf(server: PostgresServer, archive: string, to: string) {
  const restored = keep(
    await server.createRestored(async (dataDir) => {
      await walkeepDone(['restore', '--to', to, archive, dataDir]);
    }),
  );
  await restored.start();
  await waitFor(async () => {
    const [row] = await restored.sql('SELECT pg_get_wal_replay_pause_state() AS s');
    return row?.s === 'paused';
  });
  return (await numbersOf(restored)).at(-1);
}

// A server that reads ahead asks for the missing segment before it is at the target.
test('recovers to the last commit before a missing segment', async () => {
  let last: NumberedCommit | undefined;
  const { server, archive } = await received(async (server, rows) => {
    await rows.add(server, 20, 1);
    await server.switchWal();
    last = rows.last;
    await rows.add(server, 4, 4);
  });
  const { n, before } = last as NumberedCommit;
  const { segmentSize } = server;
  const segment = segmentOf(before, segmentSize) + 1n;
  rmSync(join(archive, segmentFileName(1, segment, segmentSize)));
  handOver(archive);
  expect(await lastOf(server, archive, formatLsn(before))).toBe(n);
});

// No server is given a segment that is damaged.
test('refuses a commit in a damaged segment, and recovers to the last before that', async () => {
  const { server, archive, rows } = await received(async (server, rows) => {
    await rows.add(server, 5, 1);
    await server.switchWal();
    await rows.add(server, 4);
    await writeWal(server, 300_000);
    await rows.add(server, 4, 4);
  });
  const [, , , , fifth, , seventh] = rows.commits as NumberedCommit[];
  const { segmentSize } = server;
  const { before } = seventh as NumberedCommit;
  const name = segmentFileName(1, segmentOf(before, segmentSize), segmentSize);
  flip(join(archive, name), Number(before % BigInt(segmentSize)) + 100_000);
  handOver(archive);
  const refused = await walkeep(['restore', '-n', '--to', formatLsn(before), archive, '/tmp/none']);
  expect(refused.code, refused.stderr).toBe(2);
  const [, to] = /hint: Use --to (\S+): it has the commit/.exec(refused.stderr) ?? [];
  expect(await lastOf(server, archive, to as string)).toBe(fifth?.n);
});
