import {
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { type Lsn, parseLsn } from '../../src/lsn.js';
import { disposer } from '../support/cleanup.js';
import { MAJORS, PostgresServer } from '../support/postgres.js';
import { archiveDirectory, holds, receive, waitEqual, writeWal } from '../support/receiving.js';
import { waitFor } from '../support/wait.js';

const keep = disposer();

/** The last flush position that the server was told: a physical slot's restart_lsn. */
async function acknowledged(server: PostgresServer): Promise<Lsn> {
  const [row] = await server.sql(
    "SELECT restart_lsn::text AS lsn FROM pg_replication_slots WHERE slot_name = 's'",
  );
  return parseLsn(row?.lsn);
}

test.each([[[]], [['-Z', 'gzip']], [['-Z', 'lz4']]])(
  'kill -9 under load loses no acknowledged byte %j',
  async (compression) => {
    const server = keep(await PostgresServer.create({ major: MAJORS.at(-1)!, archive: true }));
    await server.sql("SELECT pg_create_physical_replication_slot('s', true)");
    const directory = archiveDirectory();
    const args = ['-S', 's', '--synchronous', ...compression];
    // Killed after so many segments of this run, and a first, second… look at the position.
    for (const [segments, moves] of [
      [0, 1],
      [1, 0],
      [1, 2],
      [2, 1],
      [0, 3],
    ] as const) {
      const run = keep(receive(directory, server.conninfo(), args));
      await run.waitForOutput(/starting log streaming/);
      let loading = true;
      const load = (async () => {
        while (loading) await writeWal(server, 400_000);
      })();
      await waitFor(() => (run.stderr.match(/finished segment/g)?.length ?? 0) >= segments);
      let seen = await acknowledged(server);
      for (let i = 0; i < moves; i++) {
        seen = await waitFor(
          async () => {
            const now = await acknowledged(server);
            return now > seen ? now : undefined;
          },
          { intervalMs: 1, what: 'another acknowledgement' },
        );
      }
      await run.stop('SIGKILL');
      loading = false;
      await load;
      await waitFor(async () => (await server.walSenderPids()).length === 0);
      const lsn = await acknowledged(server);
      expect(await holds(directory, server, lsn), `after ${segments}, ${moves}`).toBeUndefined();
    }
    const last = keep(receive(directory, server.conninfo(), args));
    await last.waitForOutput(/starting log streaming/);
    await waitEqual(directory, server);
    expect(await last.stop()).toEqual({ code: 0, signal: null });
    expect(last.stderr).not.toMatch(/error|warning/);
  },
);

/** Two full segments that a killed receiver did not bring to their final names, and one begun. */
async function unfinished(major = MAJORS.at(-1)!) {
  const server = keep(await PostgresServer.create({ major, archive: true }));
  await server.sql("SELECT pg_create_physical_replication_slot('s', true)");
  const directory = archiveDirectory();
  const args = ['-S', 's', '--synchronous'];
  const run = keep(receive(directory, server.conninfo(), args));
  await run.waitForOutput(/starting log streaming/);
  for (let i = 0; i < 8; i++) await writeWal(server, 400_000);
  await waitEqual(directory, server);
  await run.stop('SIGKILL');
  const left = readdirSync(directory)
    .filter((name) => /^[0-9A-F]{24}$/.test(name))
    .sort()
    .slice(-2)
    .map((name) => join(directory, name));
  for (const path of left) renameSync(path, `${path}.partial`);
  return { server, directory, args, left };
}

/** Waits until the server has none of these segments any more. */
async function removed(server: PostgresServer, left: readonly string[]): Promise<void> {
  await server.configure({ wal_keep_size: '0', max_wal_size: '2MB' });
  await waitFor(async () => {
    await server.switchWal();
    await server.sql('CHECKPOINT');
    const there = readdirSync(join(server.dataDir, 'pg_wal'));
    return !left.some((path) => there.includes(path.slice(-24)));
  });
}

test.each(['with the ledger', 'without'])(
  'full segments that the server no longer has get their final names, %s',
  async (ledger) => {
    const { server, directory, args, left } = await unfinished();
    if (ledger === 'without') rmSync(join(directory, '.walkeep-ledger'));
    await removed(server, left);
    const run = keep(receive(directory, server.conninfo(), args));
    await run.waitForOutput(/starting log streaming/);
    await writeWal(server, 100_000);
    await waitEqual(directory, server);
    expect(await run.stop()).toEqual({ code: 0, signal: null });
    expect(run.stderr).not.toMatch(/error|warning/);
  },
);

test('a left segment that is not whole is received again', async () => {
  const { server, directory, args, left } = await unfinished();
  truncateSync(`${left[1]}.partial`, 500_000);
  truncateSync(`${left[1]}.partial`, server.segmentSize);
  const run = keep(receive(directory, server.conninfo(), args));
  await run.waitForOutput(/starting log streaming[\s\S]*finished segment/);
  await waitEqual(directory, server);
  expect(await run.stop()).toEqual({ code: 0, signal: null });
  // The one before it was whole: it only had to get its name.
  const [named, received] = run.stderr.split('starting log streaming');
  expect(named?.match(/finished segment/g)).toHaveLength(1);
  expect(received?.match(/finished segment/g)).toHaveLength(1);
});

// Servers before 15 do not tell where their slot stands: only that they lack the segment tells it.
test.each(
  [MAJORS[0]!, MAJORS.at(-1)!].flatMap((major) =>
    (['with a ledger that ends before them', 'without a ledger'] as const).map(
      (ledger) => [major, ledger] as const,
    ),
  ),
)(
  'left segments whose beginning was moved away, and that the server has removed (PostgreSQL %i, %s)',
  async (major, ledger) => {
    const { server, directory, args, left } = await unfinished(major);
    // Each begins with the rest of a record, whose beginning is away.
    const moved = readdirSync(directory).filter((name) => /^[0-9A-F]{24}$/.test(name));
    for (const name of moved) rmSync(join(directory, name));
    const path = join(directory, '.walkeep-ledger');
    if (ledger === 'without a ledger') rmSync(path);
    else {
      const lines = readFileSync(path, 'utf8').split('\n');
      const end = lines.findLastIndex((line) => /"complete"/.test(line));
      const before = lines.findLastIndex((line, i) => i < end && /"complete"/.test(line));
      writeFileSync(
        path,
        lines
          .slice(0, before)
          .map((line) => `${line}\n`)
          .join(''),
      );
    }
    await removed(server, left);
    const run = keep(receive(directory, server.conninfo(), args));
    const finished = () => left.every((file) => readdirSync(directory).includes(file.slice(-24)));
    await waitFor(finished, { what: 'the segments to get their names' }).catch((error) => {
      throw new Error(`${error.message}\n${run.stderr}`);
    });
    await writeWal(server, 100_000);
    await waitEqual(directory, server);
    expect(await run.stop()).toEqual({ code: 0, signal: null });
    expect(run.stderr).not.toMatch(/warning/);
  },
);
