import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, test, vi } from 'vitest';
import type { Lsn } from '../../src/lsn.js';
import { segmentFileName, segmentOf } from '../../src/wal/file-name.js';
import { disposer } from '../support/cleanup.js';
import { caughtUp } from '../support/failover.js';
import { copyPackage } from '../support/package-copy.js';
import { MAJORS, type Major, PostgresServer } from '../support/postgres.js';
import { archiveDirectory, receive, waitEqual, writeWal } from '../support/receiving.js';
import { scratchDir, serverUser } from '../support/scratch.js';
import { findTool } from '../support/tools.js';
import { delay, waitFor } from '../support/wait.js';
import { flip } from '../support/wal-archive.js';
import { workload } from '../support/workload.js';

vi.setConfig({ testTimeout: 120_000 });

const keep = disposer();
const NEWEST = MAJORS.at(-1) as Major;

let shared: string | undefined;
/** restore_command of the package, as the servers' user runs it. */
function restoreCommand(archive: string, options = '', root?: string): string {
  shared ??= copyPackage();
  const bin = join(root ?? shared, 'bin', 'walkeep');
  return `PATH=${dirname(process.execPath)}:$PATH ${bin} fetch ${options} ${archive} %f %p`;
}

/** Gives all of an archive to the servers' user. */
function handOver(archive: string): void {
  const { uid, gid } = serverUser;
  if (uid !== undefined) execFileSync('chown', ['-R', `${uid}:${gid}`, archive]);
}

/** What a server has of the workload, in a form that shows every difference. */
async function rows(server: PostgresServer): Promise<string> {
  const [row] = await server.sql<{ digest: string }>(
    `SELECT (SELECT count(*) || ' ' || coalesce(max(id), 0) FROM committed) || ' ' ||
       (SELECT md5(coalesce(string_agg(w::text, '' ORDER BY id, n), '')) FROM work w) AS digest`,
  );
  return row?.digest as string;
}

const isPromoted = async (server: PostgresServer): Promise<boolean> =>
  (await server.sql('SELECT pg_is_in_recovery() AS r'))[0]?.r === false;

/** Recovers to the end of what `settings` ask for. */
async function recover(
  origin: PostgresServer,
  backup: string,
  restore: string,
  settings: Record<string, string> = {},
): Promise<PostgresServer> {
  const server = keep(
    await origin.recoverFrom({
      backup,
      restoreCommand: restore,
      targetSettings: { recovery_target_action: 'promote', ...settings },
    }),
  );
  await waitFor(() => isPromoted(server), { what: 'the end of recovery' });
  return server;
}

/** A primary that is being received from, and a backup of it. */
async function received(major: Major, args: string[] = []) {
  const primary = keep(await PostgresServer.create({ major, archive: true }));
  const archive = archiveDirectory();
  const run = keep(receive(archive, primary.conninfo(), args));
  await run.waitForOutput(/starting log streaming/);
  await workload(primary, { transactions: 2 });
  return { primary, archive, run, backup: await primary.baseBackup() };
}

/** How each major's archive is stored, what it is recovered to, and with which options. */
const WAYS = {
  14: { args: [], target: 'time', options: '' },
  15: { args: ['-Z', 'gzip:1'], target: 'lsn', options: '--prefetch=4' },
  16: { args: ['-Z', 'lz4'], target: 'xid', options: '' },
  17: { args: [], target: 'name', options: '--prefetch=8' },
  18: { args: ['-Z', 'gzip:1'], target: 'time', options: '' },
} as const;

test.for(MAJORS)(
  'PostgreSQL %i: every commit from archive and partial tail, and one moment',
  async (major, context) => {
    const way = WAYS[major];
    if (way.args[1] === 'lz4' && !findTool('lz4')) context.skip('the lz4 tool is not installed');
    const { primary, archive, run, backup } = await received(major, [...way.args]);
    await workload(primary, { transactions: 12, switchEvery: 5, messageBytes: 400_000 });

    // The moment: after transaction 14, of which `then` is what was there.
    const client = await primary.client();
    await client.query('BEGIN');
    await client.query('INSERT INTO committed VALUES (1000)');
    const xid = (await client.query('SELECT pg_current_xact_id()::text AS x')).rows[0].x;
    await client.query('COMMIT');
    const then = await rows(primary);
    await client.query("SELECT pg_create_restore_point('moment')");
    const moment = (
      await client.query(
        'SELECT clock_timestamp()::text AS time, pg_current_wal_lsn()::text AS lsn',
      )
    ).rows[0];
    await delay(20);
    await client.end();
    await workload(primary, { transactions: 6, switchEvery: 4, messageBytes: 300_000 });
    // Without a switch: the last commits are in a partial file only.
    await workload(primary, { transactions: 3 });
    await waitEqual(archive, primary);
    const now = await rows(primary);
    await primary.kill9();
    await run.stop();
    handOver(archive);
    expect(readdirSync(archive).some((name) => name.endsWith('.partial'))).toBe(true);

    const restore = restoreCommand(archive, way.options);
    const latest = await recover(primary, backup, restore);
    expect(await rows(latest)).toBe(now);
    expect(await latest.log()).toMatch(/is a partial segment, good up to/);
    const spool = join(latest.dataDir, 'pg_wal', '.walkeep-spool');
    if (way.options !== '') await waitFor(() => !existsSync(spool), { what: 'no spool' });
    await latest.destroy();

    const target = {
      time: { recovery_target_time: moment.time },
      lsn: { recovery_target_lsn: moment.lsn },
      xid: { recovery_target_xid: xid },
      name: { recovery_target_name: 'moment' },
    }[way.target];
    const past = await recover(primary, backup, restore, target);
    expect(await rows(past)).toBe(then);
  },
);

test('latest across two promotions, and onto the older timelines', async () => {
  const { primary, archive, run, backup } = await received(NEWEST);
  await workload(primary, { transactions: 4, messageBytes: 400_000 });
  const second = keep(await primary.createStandby({ archive: true }));
  await caughtUp(primary, second);
  const third = keep(await second.createStandby({ archive: true }));
  await caughtUp(primary, third);
  await waitEqual(archive, primary);
  const one = await rows(primary);
  await primary.kill9();
  await run.stop();

  await second.promote();
  const follow = keep(receive(archive, second.conninfo()));
  await workload(second, { transactions: 4, messageBytes: 400_000 });
  await caughtUp(second, third);
  await waitEqual(archive, second, { timeline: 2, others: [primary] });
  const two = await rows(second);
  await second.kill9();
  await follow.stop();

  await third.promote();
  const last = keep(receive(archive, third.conninfo()));
  await workload(third, { transactions: 4, messageBytes: 400_000 });
  await waitEqual(archive, third, { timeline: 3, others: [primary, second] });
  const three = await rows(third);
  await third.kill9();
  await last.stop();
  handOver(archive);

  const restore = restoreCommand(archive);
  const expected = { latest: three, '3': three, '2': two, '1': one };
  for (const [timeline, digest] of Object.entries(expected)) {
    const server = await recover(primary, backup, restore, { recovery_target_timeline: timeline });
    expect([timeline, await rows(server)]).toEqual([timeline, digest]);
    await server.destroy();
  }
});

/** Recovery must stop with FATAL, not end. */
async function expectStop(
  origin: PostgresServer,
  backup: string,
  cause: string,
  restore: string,
): Promise<void> {
  const server = keep(await origin.recoverFrom({ backup, restoreCommand: restore, start: false }));
  server.spawn();
  await server.waitStopped().catch((e) => {
    throw new Error(`${cause}: ${e.message}`, { cause: e });
  });
  const log = await server.log();
  const fatal = expect.stringMatching(/FATAL: .*could not restore file/);
  expect([cause, log]).toEqual([cause, fatal]);
  expect(log).not.toMatch(/selected new timeline|archive recovery complete/);
  await server.destroy();
}

test('node that fails once in the middle of recovery does not end it', async () => {
  const { primary, archive, run, backup } = await received(NEWEST);
  await writeWal(primary, 3_500_000);
  await workload(primary, { transactions: 3 });
  await waitEqual(archive, primary);
  const segment = segmentOf(await primary.currentLsn(), primary.segmentSize) - 2n;
  await primary.kill9();
  await run.stop();
  handOver(archive);
  const ending = join(copyPackage(), 'end.cjs');
  writeFileSync(ending, 'process.exit(0);');
  chmodSync(ending, 0o644);
  const name = segmentFileName(1, segment, primary.segmentSize);
  // By itself it ends with 1, with 9, and with 0 though nothing was fetched.
  for (const option of ['--require=/nonexistent.cjs', '--no-such-option', `--require=${ending}`]) {
    const once = `case %f in ${name}) export NODE_OPTIONS=${option};; esac;`;
    await expectStop(primary, backup, option, `${once} ${restoreCommand(archive)}`);
  }
});

test('a broken archive never ends recovery early', async () => {
  const { primary, archive, run, backup } = await received(NEWEST);
  await writeWal(primary, 3_500_000);
  await workload(primary, { transactions: 3 });
  await waitEqual(archive, primary);
  const lsn = await primary.currentLsn();
  await primary.kill9();
  await run.stop();
  const name = (back: bigint) =>
    segmentFileName(1, segmentOf(lsn, primary.segmentSize) - back, primary.segmentSize);
  const noModule = copyPackage();
  rmSync(join(noModule, 'dist', 'fetch.cjs'));
  const noDependency = copyPackage();
  rmSync(join(noDependency, 'node_modules'), { recursive: true });
  const other = keep(await PostgresServer.create({ major: NEWEST, fresh: true, archive: true }));
  await writeWal(other, 1_500_000);
  await other.waitArchived(await other.switchWal());

  const empty = (dir: string): void => {
    rmSync(dir, { recursive: true });
    mkdirSync(dir);
  };
  const causes: [string, (dir: string) => void, string?][] = [
    ['gone', (dir) => rmSync(dir, { recursive: true })],
    ['closed', (dir) => execFileSync('sh', ['-c', 'chown 0:0 "$1" && chmod 700 "$1"', 'sh', dir])],
    ['not mounted', empty],
    ['a hole', (dir) => rmSync(join(dir, name(2n)))],
    ['a flipped byte', (dir) => flip(join(dir, name(2n)), 500_000)],
    ['a flipped byte in the tail', (dir) => flip(join(dir, `${name(0n)}.partial`), 100)],
    ['a cut segment', (dir) => execFileSync('truncate', ['-s', '8192', join(dir, name(2n))])],
    [
      'another cluster',
      (dir) => {
        rmSync(dir, { recursive: true });
        execFileSync('cp', ['-a', other.archiveDir, dir]);
      },
    ],
    ['no module', () => {}, noModule],
    ['no dependency', () => {}, noDependency],
    ['no program', () => {}, '/nonexistent'],
  ];
  // Nobody is kept out where all run as one user.
  const tried = causes.filter(([cause]) => cause !== 'closed' || serverUser.uid !== undefined);
  await Promise.all(
    [0, 1].map(async (worker) => {
      for (const [cause, damage, root] of tried.filter((_, i) => i % 2 === worker)) {
        const copy = join(scratchDir('broken', { forServer: true }), 'archive');
        execFileSync('cp', ['-a', archive, copy]);
        handOver(copy);
        damage(copy);
        await expectStop(primary, backup, cause, restoreCommand(copy, '', root));
      }
    }),
  );
  // And the same without the damage.
  handOver(archive);
  const server = await recover(primary, backup, restoreCommand(archive));
  expect(await rows(server)).toContain('5 5 ');
});

test('a hot standby survives a passing outage', async () => {
  const { primary, archive, run, backup } = await received(NEWEST);
  handOver(archive);
  const standby = keep(
    await primary.recoverFrom({
      backup,
      restoreCommand: restoreCommand(archive),
      standby: true,
      settings: { log_min_messages: 'debug2' },
    }),
  );
  const caught = async (lsn: Lsn) => {
    await waitFor(
      async () => {
        // What the receiver, who is another user, has made since.
        handOver(archive);
        return (await standby.currentLsn()) >= lsn;
      },
      { what: 'the standby to replay', timeoutMs: 30_000, intervalMs: 100 },
    );
  };
  await workload(primary, { transactions: 3, messageBytes: 300_000 });
  await caught(await primary.currentLsn());

  const parent = join(archive, '..');
  const away = join(parent, `${Date.now()}-away`);
  renameSync(archive, away);
  const before = (await standby.log()).length;
  await waitFor(async () => /could not open directory/.test((await standby.log()).slice(before)), {
    what: 'the outage to be seen',
  });
  await waitFor(
    async () => /could not restore file .*exit code 1/.test((await standby.log()).slice(before)),
    {
      what: 'the standby to go on without',
    },
  );
  expect(await isPromoted(standby)).toBe(false);
  renameSync(away, archive);
  await run.stop();
  const again = keep(receive(archive, primary.conninfo()));
  await again.waitForOutput(/starting log streaming/);
  await workload(primary, { transactions: 3, messageBytes: 300_000 });
  await caught(await primary.currentLsn());
  expect(await rows(standby)).toBe(await rows(primary));
  // Promotion is not delayed, and takes what is there.
  await primary.kill9();
  await standby.promote();
  expect(await rows(standby)).toMatch(/^8 8 /);
});
