import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { disposer } from '../support/cleanup.js';
import { runCli, unfolded } from '../support/cli.js';
import { MAJORS, type Major, PostgresServer } from '../support/postgres.js';
import { archiveDirectory, receive, waitEqual, writeWal } from '../support/receiving.js';
import { backend, ScriptedServer } from '../support/scripted-server.js';
import { waitFor } from '../support/wait.js';
import { makeWal } from '../wal/synthetic.js';

// A cluster that is cloned, or restored from an older copy of its files, goes its own way on the same
// timeline, under the same system identifier.

const keep = disposer();
const TRIED = process.env.WALKEEP_EVERY_MAJOR
  ? MAJORS
  : MAJORS.filter((major) => major === 15 || major === 18);
const contents = (directory: string) =>
  readdirSync(directory)
    .filter((name) => !name.startsWith('.'))
    .map((name) => [name, readFileSync(join(directory, name)).toString('latin1')]);

describe.each(TRIED)('a server restored on the same timeline, PostgreSQL %i', (major: Major) => {
  /** An archive that is ahead of its server, which was put back to an older state. */
  async function restored(slot: boolean, atBoundary: boolean) {
    const server = keep(await PostgresServer.create({ major, archive: true }));
    const args = ['--synchronous', ...(slot ? ['-S', 's'] : [])];
    if (slot) await server.sql("SELECT pg_create_physical_replication_slot('s', true)");
    await server.configure({ wal_keep_size: '64MB' });
    await writeWal(server, 100_000);
    await server.stop();
    const copy = join(server.dir, 'copy');
    execFileSync('cp', ['-a', server.dataDir, copy]);
    await server.start();
    const directory = archiveDirectory();
    const run = keep(receive(directory, server.conninfo(), args));
    await run.waitForOutput(/starting log streaming/);
    await writeWal(server, 3_300_000);
    await waitEqual(directory, server);
    if (atBoundary) {
      const last = join(directory, await server.switchWal());
      await waitFor(() => existsSync(last));
    }
    expect(await run.stop()).toEqual({ code: 0, signal: null });
    await server.stop();
    rmSync(server.dataDir, { recursive: true });
    execFileSync('cp', ['-a', copy, server.dataDir]);
    rmSync(server.archiveDir, { recursive: true });
    await server.start();
    return { server, directory, args };
  }

  async function isRefused({ server, directory, args }: Awaited<ReturnType<typeof restored>>) {
    const before = contents(directory);
    const run = keep(receive(directory, server.conninfo(), args));
    expect(await run.exit, run.stderr).toEqual({ code: 1, signal: null });
    expect(run.stderr).toMatch(/error: the server (has|sent) other (WAL|bytes) at/);
    expect(run.stderr).toMatch(/hint: .*use a new directory for it/);
    expect(run.stderr).not.toMatch(/memory, disk|Receiving stopped/);
    return { before, run };
  }

  test.each([true, false])('while it is behind the archive; slot: %s', async (slot) => {
    const place = await restored(slot, false);
    await writeWal(place.server, 50_000);
    const { before } = await isRefused(place);
    expect(contents(place.directory)).toEqual(before);
    // As if nothing was received for a while.
    for (const name of readdirSync(place.directory)) utimesSync(join(place.directory, name), 0, 0);
    const check = keep(
      runCli(['check', '-D', place.directory, '-d', place.server.conninfo(), '-w']),
    );
    await check.exit;
    expect(unfolded(check.stdout)).toMatch(/the archive has WAL up to \S+, the server only up to/);
  });

  test.each([true, false])('once it has passed the archive; at a segment end: %s', async (at) => {
    const place = await restored(false, at);
    await writeWal(place.server, 7_000_000);
    const { before } = await isRefused(place);
    const stored = contents(place.directory).filter(([name]) => !name?.endsWith('.partial'));
    expect(stored).toEqual(before.filter(([name]) => !name?.endsWith('.partial')));
  });
});

test('a stop while the server is compared with what is stored', async () => {
  const wal = makeWal(Array.from({ length: 600 }, (_, n) => ({ body: Buffer.alloc(3001, n) })));
  const stored = wal.start + 0x100000n;
  const server = keep(
    await ScriptedServer.listen(async (c, index) => {
      const flushLsn = index === 0 ? wal.start : wal.start + 0x8000n;
      const { lsn } = await c.startStream({ systemId: '77', segmentSizeMb: 1, flushLsn });
      // Asked for what it said to have, it does not send it.
      if (index > 0) return;
      c.send(backend.xlogData(lsn, wal.bytes.subarray(Number(lsn - wal.start))));
      await waitFor(() => c.ended || c.statusReplies.some((s) => s.flush > stored));
      c.close();
    }),
  );
  const conninfo = server.conninfo({ sslmode: 'disable' });
  const run = keep(receive(archiveDirectory(), conninfo, ['--synchronous']));
  const compared = await server.connection(1);
  await waitFor(() => compared.queries.some((query) => query.startsWith('START_REPLICATION')));
  expect(await run.stop()).toEqual({ code: 0, signal: null });
});
