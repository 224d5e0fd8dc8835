import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test, vi } from 'vitest';
import { openBackupArea } from '../../src/archive/backups/area.js';
import { openArchive } from '../../src/archive/places/open-archive.js';
import { readCatalog } from '../../src/archive/read-catalog.js';
import { locateTarget, type TargetResult } from '../../src/archive/targets/locate.js';
import type { RecoveryTarget } from '../../src/archive/targets/target.js';
import type { WayBegin } from '../../src/archive/targets/way.js';
import { beginOf, windowOf } from '../../src/archive/targets/window.js';
import { formatLsn, type Lsn, parseLsn } from '../../src/lsn.js';
import {
  formatTimestamp,
  parseTimestamp,
  type TimestampTz,
} from '../../src/wal/records/timestamp.js';
import { randomNumbers } from '../support/archives.js';
import { disposer } from '../support/cleanup.js';
import { type Major, PostgresServer } from '../support/postgres.js';
import { archiveDirectory, receive, writeWal } from '../support/receiving.js';
import { backupOf } from '../support/taken-backup.js';
import { delay, waitFor } from '../support/wait.js';

vi.setConfig({ testTimeout: 600_000 });

const keep = disposer();

interface Workload {
  /** Committed transactions, in the order of their commits. */
  committed: { xid: number; before: Lsn; after: Lsn; time: TimestampTz }[];
  aborted: number[];
  /** Restore points, and how many transactions were committed before them. */
  points: { name: string; committed: number }[];
}

/** One transaction after the other, so that the order of their commits is known. */
async function work(server: PostgresServer, random: () => number): Promise<Workload> {
  const client = await server.client();
  const done: Workload = { committed: [], aborted: [], points: [] };
  const lsn = async () =>
    parseLsn((await client.query('SELECT pg_current_wal_insert_lsn()::text AS l')).rows[0].l);
  for (let i = 0; i < 60; i++) {
    const what = Math.floor(random() * 10);
    if (what === 0) {
      const name = `point ${Math.floor(random() * 4)}`;
      await client.query('SELECT pg_create_restore_point($1)', [name]);
      done.points.push({ name, committed: done.committed.length });
      continue;
    }
    if (what === 1) await client.query('CHECKPOINT');
    if (what === 2) await delay(30);
    if (what === 3) await client.query('SELECT pg_switch_wal()');
    await client.query('BEGIN');
    const sql = 'INSERT INTO log SELECT pg_current_xact_id()::text::bigint RETURNING xid';
    const xid = Number((await client.query(sql)).rows[0].xid);
    if (what === 4) await client.query('SAVEPOINT s; INSERT INTO filler SELECT 1');
    if (what === 5) {
      const size = Math.floor(random() * 300_000);
      await client.query("SELECT pg_logical_emit_message(true, 't', repeat('x', $1::int))", [size]);
    }
    const ends = what === 6 ? 'abort' : what === 7 ? 'prepared' : 'commit';
    const before = await lsn();
    if (ends === 'abort') {
      await client.query('ROLLBACK');
      done.aborted.push(xid);
      continue;
    }
    if (ends === 'prepared') {
      await client.query(`PREPARE TRANSACTION 'p${xid}'`);
      await client.query(`COMMIT PREPARED 'p${xid}'`);
    } else await client.query('COMMIT');
    const { rows } = await client.query(
      `SELECT pg_current_wal_insert_lsn()::text AS lsn,
         to_char(pg_xact_commit_timestamp('${xid}'::xid) AT TIME ZONE 'UTC',
           'YYYY-MM-DD HH24:MI:SS.US"+00"') AS time`,
    );
    const time = parseTimestamp(rows[0].time);
    done.committed.push({ xid, before, after: parseLsn(rows[0].lsn), time });
  }
  await client.end();
  return done;
}

/** Where the backup begins and ends, as the server archived it. */
function backupIn(archive: string): WayBegin {
  const name = readdirSync(archive).find((one) => one.endsWith('.backup')) as string;
  const text = readFileSync(join(archive, name), 'utf8');
  const at = (what: string) => parseLsn(new RegExp(`${what} WAL LOCATION: (\\S+)`).exec(text)![1]!);
  return { redo: at('START'), lsn: at('STOP'), timeline: 1 };
}

function randomTarget(random: () => number, done: Workload, kind: number): RecoveryTarget {
  const below = (n: number) => Math.floor(random() * n);
  const one = done.committed[3 + below(done.committed.length - 6)]!;
  const inclusive = below(2) === 0;
  switch (kind) {
    case 0:
      return { kind: 'name', name: done.points[below(done.points.length)]?.name ?? 'point 0' };
    case 1:
      return {
        kind: 'xid',
        xid: below(4) === 0 ? (done.aborted[0] ?? one.xid) : one.xid,
        inclusive,
      };
    case 2:
      return {
        kind: 'lsn',
        lsn: [one.before, one.after, one.after + 3n][below(3)] as Lsn,
        inclusive,
      };
    default: {
      const time = (one.time + [0n, 0n, 1n, -1n, 12_345n][below(5)]!) as TimestampTz;
      return { kind: 'time', time, inclusive };
    }
  }
}

/** As whoever sets up recovery by hand would write it. */
function settingsOf(target: RecoveryTarget): Record<string, string> {
  const inclusive = {
    recovery_target_inclusive: 'inclusive' in target && !target.inclusive ? 'off' : 'on',
  };
  switch (target.kind) {
    case 'time':
      return { recovery_target_time: formatTimestamp(target.time), ...inclusive };
    case 'lsn':
      return { recovery_target_lsn: formatLsn(target.lsn), ...inclusive };
    case 'xid':
      return { recovery_target_xid: String(target.xid), ...inclusive };
    case 'name':
      return { recovery_target_name: target.name };
    default:
      return {};
  }
}

function located(result: TargetResult) {
  expect(result).toHaveProperty('located');
  return (result as Extract<TargetResult, { located: object }>).located;
}

/** The transactions that a server has which recovers with these settings. */
async function recovered(
  origin: PostgresServer,
  backup: string,
  settings: Record<string, string>,
): Promise<number[]> {
  const server = keep(
    await origin.recoverFrom({
      backup,
      restoreCommand: `cp ${origin.archiveDir}/%f %p`,
      targetSettings: { recovery_target_action: 'promote', ...settings },
    }),
  );
  await waitFor(async () => (await server.sql('SELECT pg_is_in_recovery() AS r'))[0]!.r === false);
  const rows = await server.sql<{ xid: string }>('SELECT xid::text FROM log');
  await server.destroy();
  return rows.map(({ xid }) => Number(xid)).sort((a, b) => a - b);
}

describe.each([14, 18] as const)('PostgreSQL %i', (major: Major) => {
  test('stops where it was said that it would', async () => {
    const random = randomNumbers(major * 31);
    const settings = { track_commit_timestamp: 'on', max_prepared_transactions: '5' };
    const server = keep(await PostgresServer.create({ major, archive: true, settings }));
    await server.sql('CREATE TABLE log (xid bigint)');
    await server.sql('CREATE TABLE filler (n int)');
    await server.sql('INSERT INTO log VALUES (0)');
    const backup = await server.baseBackup();
    const done = await work(server, random);
    await server.waitArchived(await server.switchWal());
    const archive = await openArchive(server.archiveDir);
    const catalog = await readCatalog(archive);
    const after = backupIn(server.archiveDir);
    for (let i = 0; i < 10; i++) {
      const target = randomTarget(random, done, i % 5);
      const found = located(await locateTarget(catalog, target, { after }));
      const to = done.committed.findIndex(({ xid }) => xid === found.last?.xid);
      // What stands before a named point is told by the point itself.
      const count =
        target.kind === 'name'
          ? done.points.find(({ name }) => name === target.name)!.committed
          : to + 1;
      const expected = [0, ...done.committed.slice(0, count).map(({ xid }) => xid)];
      expected.sort((a, b) => a - b);
      const what = `${i} ${JSON.stringify(target, (_, v) => (typeof v === 'bigint' ? `${v}` : v))}`;
      // What PostgreSQL makes of the target itself, and of what it was turned into.
      const bySetting = found.setting as { name: string; value: string; inclusive: boolean };
      const turned = {
        [bySetting.name]: bySetting.value,
        recovery_target_inclusive: bySetting.inclusive ? 'on' : 'off',
      };
      const own = await recovered(server, backup, settingsOf(target));
      expect({ what, xids: own }).toEqual({ what, xids: expected });
      const ours = await recovered(server, backup, turned);
      expect({ what, xids: ours }).toEqual({ what, xids: expected });
    }
    const last = done.committed.at(-1)!;
    const late = (last.time + 60_000_000n) as TimestampTz;
    const refused = await locateTarget(
      catalog,
      { kind: 'time', time: late, inclusive: true },
      { after },
    );
    expect(refused).toMatchObject({ unreachable: { reason: 'after-last' } });
    await archive.close();
  });
});

test('a second backup leaves an index behind, by which targets of the first are found', async () => {
  const settings = { track_commit_timestamp: 'on' };
  const server = keep(await PostgresServer.create({ major: 18, settings }));
  await server.sql('CREATE TABLE log (xid bigint)');
  const directory = archiveDirectory();
  const receiver = keep(receive(directory, server.conninfo()));
  await receiver.waitForOutput(/starting log streaming/);
  const first = await backupOf(server, directory);
  const marked: { xid: number; time: TimestampTz }[] = [];
  for (let i = 0; i < 80; i++) {
    await writeWal(server, 900_000);
    const sql = 'INSERT INTO log SELECT pg_current_xact_id()::text::bigint RETURNING xid';
    const xid = Number((await server.sql<{ xid: string }>(sql))[0]!.xid);
    const [row] = await server.sql<{ t: string }>(
      `SELECT to_char(pg_xact_commit_timestamp('${xid}'::xid) AT TIME ZONE 'UTC',
         'YYYY-MM-DD HH24:MI:SS.US"+00"') AS t`,
    );
    marked.push({ xid, time: parseTimestamp(row!.t) });
  }
  await backupOf(server, directory);
  const objects = readdirSync(join(directory, 'index', '00000001'));
  expect(objects.length).toBeGreaterThan(1);

  const archive = await openArchive(directory);
  const catalog = await readCatalog(archive);
  const area = await openBackupArea(directory, {});
  const after = beginOf(first.record);
  const ask = (target: RecoveryTarget, withIndex: boolean) =>
    locateTarget(catalog, target, { after, ...(withIndex ? { area } : {}) });
  for (const { xid, time } of marked.filter((_, i) => i % 9 === 4)) {
    const targets: RecoveryTarget[] = [
      { kind: 'xid', xid, inclusive: true },
      { kind: 'time', time, inclusive: true },
    ];
    for (const target of targets) {
      const indexed = located(await ask(target, true));
      expect(indexed.last).toMatchObject({ xid, time });
      const { segmentsRead, notes, ...same } = located(await ask(target, false));
      expect(indexed).toMatchObject(same);
      expect(indexed.segmentsRead).toBeLessThanOrEqual(20);
    }
  }
  // The first segment, and those behind the last whole group.
  const unknown = await ask({ kind: 'name', name: 'nowhere' }, true);
  expect(unknown).toMatchObject({ unreachable: { reason: 'unknown', notes: [] } });
  const read = (unknown as { unreachable: { segmentsRead: number } }).unreachable.segmentsRead;
  expect(read).toBeLessThan(45);

  const [window, ...others] = await windowOf(catalog, first.record);
  expect(others).toEqual([]);
  expect(window).toMatchObject({ timeline: 1, from: first.record.end.lsn, ends: 'archive' });
  expect(window!.to!.time).toBeGreaterThanOrEqual(marked.at(-1)!.time);
  await area.close();
  await archive.close();
});
