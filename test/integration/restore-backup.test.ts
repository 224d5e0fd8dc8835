import { execFile, execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { pathOf } from '../../src/restore/roots.js';
import { disposer } from '../support/cleanup.js';
import { copyPackage } from '../support/package-copy.js';
import { type Major, OUTER_MAJORS, PostgresServer } from '../support/postgres.js';
import { archiveDirectory, receive, waitEqual } from '../support/receiving.js';
import { giveToServer, serverUser } from '../support/scratch.js';
import { backupOf } from '../support/taken-backup.js';
import { waitFor } from '../support/wait.js';
import { workload } from '../support/workload.js';

vi.setConfig({ testTimeout: 180_000 });

const keep = disposer();

let shared: string | undefined;

/** Runs the command of a package that the servers' user can run, too. */
function walkeep(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  shared ??= copyPackage();
  const env = { PATH: `${dirname(process.execPath)}:${process.env.PATH}`, TZ: 'Asia/Tokyo' };
  return new Promise((resolve) => {
    execFile(join(shared!, 'bin', 'walkeep'), args, { env }, (error, stdout, stderr) =>
      resolve({
        code: typeof error?.code === 'number' ? error.code : error ? -1 : 0,
        stdout,
        stderr,
      }),
    );
  });
}

async function serverWithTablespaces(major: Major): Promise<PostgresServer> {
  const server = keep(
    await PostgresServer.create({
      major,
      initdbArgs: ['--data-checksums'],
      settings: {
        synchronous_standby_names: '',
        archive_mode: 'on',
        archive_command: 'false',
        ...(major >= 17 ? { allow_in_place_tablespaces: 'on' } : {}),
      },
    }),
  );
  for (const name of ['one', 'zwei ü']) {
    const dir = join(server.dir, name);
    mkdirSync(dir);
    giveToServer(dir);
    await server.sql(`CREATE TABLESPACE "${name}" LOCATION '${dir}'`);
    await server.sql(`CREATE TABLE "t ${name}" TABLESPACE "${name}" AS
      SELECT i, repeat('x', 200) AS t FROM generate_series(1, 10000) i`);
  }
  if (major >= 17) {
    const client = await server.client();
    await client.query("CREATE TABLESPACE here LOCATION ''");
    await client.query('CREATE TABLE t_here TABLESPACE here AS SELECT generate_series(1, 5000) i');
    await client.end();
  }
  return server;
}

async function digestOf(server: PostgresServer): Promise<string> {
  const [row] = await server.sql<{ digest: string }>(
    `SELECT (SELECT count(*) || ' ' || coalesce(max(id), 0) FROM committed) || ' ' ||
      (SELECT md5(coalesce(string_agg(w::text, '' ORDER BY id, n), '')) FROM work w) || ' ' ||
      (SELECT sum(i) FROM "t one") || ' ' || (SELECT sum(i) FROM "t zwei ü") AS digest`,
  );
  return row?.digest as string;
}

interface Moment {
  args: string[];
  digest: string;
  /** It is the end of the archive: there is no pause. */
  latest?: boolean;
}

/** Moments between which rows change, each told in its way. */
async function moments(server: PostgresServer): Promise<Moment[]> {
  const found: Moment[] = [];
  const next = async (args: () => Promise<string[]>) => {
    await workload(server, { transactions: 3, switchEvery: 4 });
    const digest = await digestOf(server);
    found.push({ args: await args(), digest });
    // The next commit is none of a session that holds locks, which a paused server still has.
    await server.sql('INSERT INTO between DEFAULT VALUES');
  };
  await server.sql('CREATE TABLE between (at timestamptz DEFAULT clock_timestamp())');
  const one = async (sql: string) => (await server.sql<{ v: string }>(sql))[0]?.v as string;
  await next(async () => ['--to', await one('SELECT clock_timestamp()::text AS v')]);
  await next(async () => ['--to', await one('SELECT pg_current_wal_insert_lsn()::text AS v')]);
  await next(async () => {
    await one("SELECT pg_create_restore_point('before it')::text AS v");
    return ['--to', 'name:before it'];
  });
  // The digest is taken before it, and it is left out.
  await next(async () => {
    const client = await server.client();
    await client.query('BEGIN');
    await client.query('INSERT INTO committed VALUES (1000001)');
    const { rows } = await client.query('SELECT pg_current_xact_id()::xid::text AS v');
    await client.query('COMMIT');
    await client.query('DELETE FROM committed WHERE id = 1000001');
    await client.end();
    return ['--to', `xid:${rows[0].v}`, '--before'];
  });
  await workload(server, { transactions: 4 });
  found.push({ args: [], digest: await digestOf(server), latest: true });
  return found;
}

async function inRecovery(server: PostgresServer): Promise<boolean> {
  return (await server.sql('SELECT pg_is_in_recovery() AS r'))[0]?.r as boolean;
}

test.each(OUTER_MAJORS)(
  'PostgreSQL %i is restored to whatever moment by one command',
  async (major) => {
    const server = await serverWithTablespaces(major);
    const archive = archiveDirectory();
    const receiver = keep(receive(archive, server.conninfo()));
    await receiver.waitForOutput(/starting log streaming/);
    await workload(server, { transactions: 5 });
    const stop = new AbortController();
    const busy = workload(server, { transactions: 10_000, signal: stop.signal });
    const method = (['gzip', 'none', 'lz4', 'zstd', 'gzip'] as const)[major - 14]!;
    const { record } = await backupOf(server, archive, { compression: { method } });
    stop.abort();
    await busy;
    const all = await moments(server);
    await waitEqual(archive, server);
    const oldSpaces = record.tablespaces.filter(({ inPlace }) => !inPlace);
    await server.kill9();
    await receiver.stop();
    const { uid, gid } = serverUser;
    if (uid !== undefined) execFileSync('chown', ['-R', `${uid}:${gid}`, archive]);

    for (const { args, digest, latest } of all) {
      const restored = keep(
        await server.createRestored(async (dataDir) => {
          const mapping = oldSpaces.flatMap(({ oid, location }) => [
            '-T',
            `${pathOf(location)}=${join(dirname(dataDir), `space ${oid}`)}`,
          ]);
          const plan = ['restore', '-n', '--no-try-fetch', ...args, ...mapping];
          const planned = await walkeep(...plan, archive, dataDir);
          expect(planned.code, planned.stderr).toBe(0);
          expect(existsSync(dataDir)).toBe(false);
          const run = await walkeep('restore', ...args, ...mapping, archive, dataDir);
          expect(run.code, run.stderr).toBe(0);
          const same = (text: string) => text.replace(/^(space|command).*$/gm, '');
          expect(same(run.stdout)).toBe(same(planned.stdout));
          expect(run.stderr).toMatch(/pg_ctl -D/);
        }),
      );
      await restored.start();
      // The first start makes the links anew.
      for (const { oid } of oldSpaces) {
        const link = readlinkSync(join(restored.dataDir, 'pg_tblspc', `${oid}`));
        expect(link).toBe(join(dirname(restored.dataDir), `space ${oid}`));
      }
      if (!latest) {
        await waitFor(
          async () =>
            (await restored.sql('SELECT pg_get_wal_replay_pause_state() AS s'))[0]?.s === 'paused',
          { what: 'the pause at the target' },
        );
        expect(await digestOf(restored)).toBe(digest);
        await restored.sql('SELECT pg_wal_replay_resume()');
      }
      await waitFor(async () => !(await inRecovery(restored)), { what: 'the end of recovery' });
      expect(await digestOf(restored)).toBe(digest);
      // Every page is read, with its checksum.
      await restored.sql('SELECT count(*) FROM work WHERE note IS NOT NULL OR big IS NOT NULL');
      await restored.sql('CREATE TABLE writes AS SELECT 1');
      const early = await walkeep('restore', '--finish', restored.dataDir);
      expect(early.code, early.stderr).toBe(0);
      expect(early.stdout).toMatch(/restore_command/);
      expect(readFileSync(join(restored.dataDir, 'postgresql.auto.conf'), 'utf8')).not.toMatch(
        /restore|recovery/,
      );
      await restored.restart();
      expect(await digestOf(restored)).toBe(digest);
      await restored.destroy();
    }
  },
);
