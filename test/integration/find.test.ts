import { cpSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { formatLsn } from '../../src/lsn.js';
import { run } from '../cli/run.js';
import { disposer } from '../support/cleanup.js';
import { forkPoint } from '../support/failover.js';
import { MAJORS, type Major, PostgresServer } from '../support/postgres.js';
import { scratchDir } from '../support/scratch.js';
import { waitFor } from '../support/wait.js';
import { workload } from '../support/workload.js';

const keep = disposer();

const SETTINGS = { track_commit_timestamp: 'on', wal_level: 'replica' };

// biome-ignore lint/suspicious/noExplicitAny: events are what JSON says
type Json = any;

/** Runs `walkeep find` with --json. */
async function find(archive: string | PostgresServer, ...args: string[]): Promise<Json[]> {
  const directory = typeof archive === 'string' ? archive : archive.archiveDir;
  const { code, stdout, stderr } = await run('walkeep', 'find', directory, '--json', ...args);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  return stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
}

/** The settings that --target prints as lines of postgresql.conf. */
async function target(server: PostgresServer, ...args: string[]): Promise<Record<string, string>> {
  const { code, stdout, stderr } = await run(
    ...(['walkeep', 'find', server.archiveDir, '--target', ...args] as const),
  );
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  const lines = [...stdout.matchAll(/^(\w+) = (?:'(.*)'|(\w+))$/gm)];
  const settings = Object.fromEntries(lines.map((m) => [m[1]!, m[2] ?? m[3]!]));
  expect(settings.restore_command).toBe(`walkeep fetch ${server.archiveDir} %f %p`);
  delete settings.restore_command;
  return settings;
}

/** A server that recovered from the archive to a target and was promoted there. */
async function recovered(
  server: PostgresServer,
  backup: string,
  targetSettings: Record<string, string>,
  own: { archive?: boolean } = {},
): Promise<PostgresServer> {
  const copy = keep(
    await server.recoverFrom({
      ...own,
      backup,
      restoreCommand: `cp ${server.archiveDir}/%f %p`,
      targetSettings: { ...targetSettings, recovery_target_action: 'promote' },
    }),
  );
  await waitFor(async () => (await copy.sql('SELECT pg_is_in_recovery() AS r'))[0]!.r === false);
  return copy;
}

/** Ends the segment and waits until the archive has it. */
const archived = async (server: PostgresServer) => server.waitArchived(await server.switchWal());

/** Runs statements in one transaction; gives its xid and its commit's time to the microsecond. */
async function transaction(server: PostgresServer, ...statements: string[]) {
  const client = await server.client();
  try {
    await client.query('BEGIN');
    for (const statement of statements) await client.query(statement);
    const { rows } = await client.query('SELECT pg_current_xact_id()::text AS xid');
    await client.query('COMMIT');
    return Number(rows[0].xid);
  } finally {
    await client.end();
  }
}

async function commitTime(server: PostgresServer, xid: number): Promise<string | null> {
  const [row] = await server.sql<{ t: string | null }>(
    `SELECT to_char(pg_xact_commit_timestamp('${xid}'::xid) AT TIME ZONE 'UTC',
       'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"') AS t`,
  );
  return row!.t;
}

const filenode = async (server: PostgresServer, table: string) =>
  Number((await server.sql(`SELECT pg_relation_filenode('${table}')::int AS n`))[0]!.n);

describe.each(MAJORS)('PostgreSQL %i', (major: Major) => {
  test('finds the accident, and recovery to just before it brings the table back', async () => {
    const server = keep(await PostgresServer.create({ major, archive: true, settings: SETTINGS }));
    const backup = await server.baseBackup();
    const ids = await workload(server, { transactions: 8, prepareEvery: 3, switchEvery: 4 });
    await transaction(server, 'CREATE TABLE precious AS SELECT generate_series(1, 1000) AS id');
    await server.sql('ANALYZE precious');
    await transaction(server, 'CREATE TABLE rewritten (a int)');
    const [point] = await server.sql("SELECT pg_create_restore_point('all is well')::text AS lsn");
    const old = await filenode(server, 'rewritten');
    const truncateXid = await transaction(server, 'TRUNCATE rewritten');
    const oid = Number((await server.sql("SELECT 'precious'::regclass::oid::int AS o"))[0]!.o);
    const file = await filenode(server, 'precious');
    await transaction(server, 'INSERT INTO rewritten VALUES (1)');
    const dropXid = await transaction(
      server,
      'INSERT INTO rewritten VALUES (2)',
      'DROP TABLE precious',
    );
    await transaction(server, 'INSERT INTO rewritten VALUES (3)');
    await archived(server);

    // The accident, by its file and relation.
    const drops = await find(server, '--drops');
    const drop = drops.find((e) => e.dropped.some((r: Json) => r.relNumber === file));
    expect(drop).toMatchObject({ kind: 'commit', xid: dropXid, onTimeline: 1 });
    expect(drop.time).toBe(await commitTime(server, dropXid));
    expect(drop.changedRelations).toContain(oid);
    const asOf = expect.stringMatching(/^0\/[0-9A-F]+$/);
    expect(drop.names).toEqual([{ oid, name: 'precious', asOf }]);
    const shown = await run('walkeep', 'find', '--drops', '--xid', `${dropXid}`, server.archiveDir);
    expect(shown.stdout).toContain(`last known names: precious (at ${drop.names[0].asOf})`);
    expect(shown.stderr).toBe('');
    const statistics = drop.droppedStatistics.map((s: Json) => [s.kind, s.objectId]);
    expect(statistics).toEqual(major >= 15 ? [[2, oid]] : []);
    const truncate = drops.find((e) => e.xid === truncateXid);
    expect(truncate.dropped.map((r: Json) => r.relNumber)).toContain(old);
    expect(truncate.created.map((r: Json) => r.relNumber)).toContain(
      await filenode(server, 'rewritten'),
    );

    // Every commit has the time that the server has for it; prepared ones have their names.
    const all = await find(server);
    const commits = all.filter((e) => e.kind === 'commit');
    expect(commits.length).toBeGreaterThan(ids.length + 5);
    // initdb did not track the times of its own.
    const first = commits.findIndex((e) => e.xid === drop.xid) - ids.length - 4;
    for (const commit of commits.slice(first)) {
      expect(commit.time).toBe(await commitTime(server, commit.xid));
    }
    const prepared = commits.filter((e) => e.prepared).map((e) => e.gid);
    expect(prepared).toEqual(ids.filter((id) => id % 3 === 0).map((id) => `work ${id}`));
    const [restorePoint] = await find(server, '--restore-point', 'all is well');
    expect(restorePoint.endLsn).toBe(point!.lsn);
    const [control] = await server.sql(
      'SELECT redo_lsn::text AS redo, checkpoint_lsn::text AS lsn FROM pg_control_checkpoint()',
    );
    const checkpoint = all.findLast((e) => e.kind === 'checkpoint');
    expect({ redo: checkpoint.redo, lsn: checkpoint.lsn }).toEqual(control);

    // Recovery lands between the transaction before and the accident.
    const settings = await target(server, '--xid', String(dropXid), '--drops');
    expect(settings).toEqual({
      recovery_target_timeline: '1',
      recovery_target_lsn: drop.lsn,
      recovery_target_inclusive: 'false',
    });
    const copy = await recovered(server, backup, settings);
    expect(await copy.sql('SELECT count(*)::int AS n, sum(id)::int AS s FROM precious')).toEqual([
      { n: 1000, s: 500_500 },
    ]);
    expect(await copy.sql('SELECT a FROM rewritten')).toEqual([{ a: 1 }]);
    const confirmed = await copy.sql('SELECT id FROM committed ORDER BY id');
    expect(confirmed.map((r) => r.id)).toEqual(ids);
  });
});

const FEW = MAJORS.filter((major) => major === 14 || major === 18);

describe.each(FEW)('PostgreSQL %i, targets', (major: Major) => {
  test('with a transaction, at a time, at a restore point: each lands exactly', async () => {
    const server = keep(await PostgresServer.create({ major, archive: true, settings: SETTINGS }));
    const backup = await server.baseBackup();
    await transaction(server, 'CREATE TABLE t (a int)');
    const xids: number[] = [];
    for (let a = 1; a <= 5; a++) {
      xids.push(await transaction(server, `INSERT INTO t VALUES (${a})`));
      if (a === 3) await server.sql("SELECT pg_create_restore_point('it''s 3')");
    }
    await archived(server);
    const rows = async (settings: Record<string, string>) => {
      const copy = await recovered(server, backup, settings);
      const values = await copy.sql('SELECT a FROM t ORDER BY a');
      await copy.destroy();
      return values.map((r) => r.a);
    };
    expect(await rows(await target(server, '--xid', String(xids[1])))).toEqual([1, 2]);
    expect(await rows(await target(server, '--xid', String(xids[1]), '--stop', 'before'))).toEqual([
      1,
    ]);
    const point = await target(server, '--restore-point', "it's 3");
    expect(point.recovery_target_name).toBe("it''s 3");
    expect(await rows({ ...point, recovery_target_name: "it's 3" })).toEqual([1, 2, 3]);
    // At the very microsecond of a commit it is in; and PostgreSQL's own reading of a time agrees.
    const time = (await commitTime(server, xids[3]!)) as string;
    const [last, next] = await find(server, '--at', time);
    expect([last.xid, next.xid]).toEqual([xids[3], xids[4]]);
    expect(await rows(await target(server, '--at', time))).toEqual([1, 2, 3, 4]);
    const byTime = { recovery_target_time: time, recovery_target_timeline: '1' };
    expect(await rows(byTime)).toEqual([1, 2, 3, 4]);
  });

  test('a dropped database can be used again', async () => {
    const server = keep(await PostgresServer.create({ major, archive: true, settings: SETTINGS }));
    await server.sql('CREATE DATABASE shop');
    const shop = await server.client({ database: 'shop' });
    await shop.query('CREATE TABLE orders AS SELECT generate_series(1, 10) AS id');
    const oid = (await shop.query("SELECT oid::int FROM pg_database WHERE datname = 'shop'"))
      .rows[0].oid;
    await shop.end();
    const backup = await server.baseBackup();
    await transaction(server, 'CREATE TABLE before (a int)');
    await server.sql('DROP DATABASE shop');
    await transaction(server, 'CREATE TABLE after (a int)');
    await archived(server);
    const drops = await find(server, '--drops');
    expect(drops.length).toBe(1);
    expect(drops[0].droppedDatabases).toEqual([{ dbOid: oid, tablespaces: [1663] }]);
    const settings = await target(server, '--drops');
    expect(settings.recovery_target_lsn).toBe(drops[0].undoLsn);
    expect(settings.recovery_target_lsn).not.toBe(drops[0].lsn);
    const copy = await recovered(server, backup, settings);
    const session = await copy.client({ database: 'shop' });
    expect((await session.query('SELECT count(*)::int AS n FROM orders')).rows).toEqual([
      { n: 10 },
    ]);
    expect(await copy.sql("SELECT to_regclass('before') AS b, to_regclass('after') AS a")).toEqual([
      { b: 'before', a: null },
    ]);
  });
});

test.skipIf(MAJORS.length === 0)('a promotion: both timelines, and the way to either', async () => {
  const server = keep(
    await PostgresServer.create({ major: MAJORS.at(-1)!, archive: true, settings: SETTINGS }),
  );
  const backup = await server.baseBackup();
  await transaction(server, 'CREATE TABLE t (a int)');
  const wrong = await transaction(server, 'INSERT INTO t VALUES (1)');
  await transaction(server, 'INSERT INTO t VALUES (2)');
  await archived(server);
  const settings = await target(server, '--xid', String(wrong), '--stop', 'before');
  const copy = await recovered(server, backup, settings, { archive: true });
  const right = await transaction(copy, 'INSERT INTO t VALUES (3)');
  await archived(copy);
  await copy.waitArchived('00000002.history');
  const both = scratchDir('both');
  for (const from of [server.archiveDir, copy.archiveDir]) cpSync(from, both, { recursive: true });
  const followed = await find(both);
  const at = followed.findIndex((e) => e.kind === 'branch');
  expect(followed[at]).toMatchObject({ parent: 1, child: 2, followed: true });
  expect(followed.some((e) => e.xid === wrong && e.onTimeline === 1)).toBe(false);
  const again = followed.findLast((e) => e.kind === 'commit');
  expect(again).toMatchObject({ xid: right, onTimeline: 2 });
  expect(followed.indexOf(again)).toBeGreaterThan(at);
  const old = await find(both, '--timeline', '1');
  expect(old.filter((e) => e.kind === 'branch')).toMatchObject([{ child: 2, followed: false }]);
  expect(old.filter((e) => e.xid === wrong)).toMatchObject([{ kind: 'commit', onTimeline: 1 }]);
  expect(followed[at].lsn).toBe(formatLsn(await forkPoint(copy)));
});
