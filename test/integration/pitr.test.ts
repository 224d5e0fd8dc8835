import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, test, vi } from 'vitest';
import { parseLsn } from '../../src/lsn.js';
import { Random } from '../simulation/random.js';
import { disposer } from '../support/cleanup.js';
import { MAJORS, type Major, PostgresServer } from '../support/postgres.js';
import { archiveDirectory, receive } from '../support/receiving.js';
import { type Moment, RecordedRows } from '../support/recorded-rows.js';
import { handOver, readsEveryPage, walkeepDone } from '../support/restoring.js';
import { giveToServer, serverUser } from '../support/scratch.js';
import { waitFor } from '../support/wait.js';

/** Restores to each kind of target; WALKEEP_PITR_RUNS=10 for more of them. */
const RUNS = Number(process.env.WALKEEP_PITR_RUNS ?? 1);
const SEED = Number(process.env.WALKEEP_PITR_SEED ?? Date.now() % 1_000_000);
/** Debian's, of 15: it reads the manifests of 13 to 16. */
const VERIFY = '/usr/lib/postgresql/15/bin/pg_verifybackup';

vi.setConfig({ testTimeout: 180_000 * RUNS });

const keep = disposer();

/** Two tablespaces elsewhere, and one in place where base backups have that. */
async function busyServer(major: Major): Promise<{ server: PostgresServer; rows: RecordedRows }> {
  const inPlace = major >= 16;
  const server = keep(
    await PostgresServer.create({
      major,
      initdbArgs: ['--data-checksums'],
      settings: {
        archive_mode: 'on',
        archive_command: '/bin/true',
        // Without it no server recovers that has one in place.
        ...(inPlace ? { allow_in_place_tablespaces: 'on' } : {}),
      },
    }),
  );
  const spaces = ['one', 'zwei ü'];
  for (const name of spaces) {
    const dir = join(server.dir, name);
    mkdirSync(dir);
    giveToServer(dir);
    await server.sql(`CREATE TABLESPACE "${name}" LOCATION '${dir}'`);
  }
  if (inPlace) await server.sql("CREATE TABLESPACE here LOCATION ''");
  const rows = new RecordedRows([undefined, ...spaces, ...(inPlace ? ['here'] : [])]);
  await rows.prepare(server);
  return { server, rows };
}

/** Down and up again as a standby that nobody feeds, and promoted: the next timeline. */
async function promoteAnew(server: PostgresServer): Promise<number> {
  await server.kill9();
  const file = join(server.dataDir, 'standby.signal');
  writeFileSync(file, '');
  giveToServer(file);
  await server.start();
  return server.promote();
}

interface Story {
  server: PostgresServer;
  rows: RecordedRows;
  archive: string;
  /** Where the first backup ended. */
  end: bigint;
  spaces: { oid: number; location: string }[];
}

/**
 * A busy primary whose commits wait for the archive; backups on its first and on its third
 * timeline; then it is gone. What it had is only in the archive.
 */
async function story(major: Major): Promise<Story> {
  const { server, rows } = await busyServer(major);
  const archive = archiveDirectory();
  await server.sql("SELECT pg_create_physical_replication_slot('keeper', true)");
  const receiver = keep(
    receive(archive, server.conninfo({ application_name: 'keeper' }), [
      ...['-S', 'keeper', '--synchronous'],
    ]),
  );
  await receiver.waitForOutput(/starting log streaming/);
  // In a file that the backup has: the restored server must not wait for this one.
  await server.sql("ALTER SYSTEM SET synchronous_standby_names = 'keeper'");
  await server.sql('SELECT pg_reload_conf()');

  const stop = new AbortController();
  const busy = rows.commits(server, { signal: stop.signal });
  await waitFor(() => rows.moments.length > 3, { what: 'the first commits' });
  const backup = async () => {
    const { stdout } = await walkeepDone(['backup', '--json', '-d', server.conninfo(), archive]);
    return JSON.parse(stdout.trim().split('\n').at(-1) as string);
  };
  const first = await backup();
  const during = rows.moments.length;
  expect(during).toBeGreaterThan(4);
  await waitFor(() => rows.moments.length > during + 12, { what: 'commits behind the backup' });
  stop.abort();
  await busy;
  const spaces = await server.sql<{ oid: number; location: string }>(
    `SELECT oid::int, pg_tablespace_location(oid) AS location FROM pg_tablespace
      WHERE spcname IN ('one', 'zwei ü')`,
  );
  for (const timeline of [2, 3]) {
    expect(await promoteAnew(server)).toBe(timeline);
    await rows.commits(server, { timeline, most: 8 });
  }
  // Targets before its end are reached from the first one all the same.
  await backup();
  await rows.commits(server, { timeline: 3, most: 4 });
  await server.kill9();
  expect((await receiver.stop()).code).toBe(0);
  handOver(archive);
  return { server, rows, archive, spaces, end: parseLsn(first.end.lsn) };
}

interface Target {
  what: string;
  args: string[];
  moment: Moment;
  /** There is nothing behind it, and no pause. */
  end?: boolean;
}

/** A target of each kind, somewhere between the end of the first backup and that of the archive. */
function targets({ rows, end }: Story, random: Random): Target[] {
  const behind = rows.moments.findIndex(({ lsn }) => parseLsn(lsn) > end) + 1;
  const pick = (among: (moment: Moment) => boolean = () => true) =>
    random.pick(rows.moments.slice(behind, -1).filter(among));
  const at = (what: string, moment: Moment, target: string): Target => ({
    ...{ what, moment },
    args: ['--to', target],
  });
  const [time, lsn, xid] = [pick(), pick(), pick()];
  const next = rows.moments[rows.moments.indexOf(pick()) + 1] as Moment;
  const before = rows.moments[rows.moments.indexOf(next) - 1] as Moment;
  const lastOf = (timeline: number) =>
    rows.moments.filter((moment) => moment.timeline === timeline).at(-1) as Moment;
  // Nobody waits until a named point is received: behind the last commit of a timeline it may be lost.
  const named = pick((one) => one.name !== undefined && one !== lastOf(one.timeline));
  const other = random.pick([1, 2]);
  // A time behind the last commit of a timeline is on no way to its end.
  const within = pick((one) => one.timeline <= other && one !== lastOf(other));
  return [
    at('time', time, time.time),
    at('LSN', lsn, lsn.lsn),
    at('xid', xid, `xid:${xid.xid}`),
    { what: 'before xid', args: ['--to', `xid:${next.xid}`, '--before'], moment: before },
    at('name', named, `name:${named.name}`),
    { what: 'timeline', args: ['--timeline', String(other)], moment: lastOf(other), end: true },
    {
      what: 'time on a timeline',
      args: ['--to', within.time, '--timeline', String(other)],
      moment: within,
    },
    { what: 'latest', args: [], moment: rows.last, end: true },
  ];
}

async function restoreAndCompare(
  { server, rows, archive, spaces }: Story,
  { what, args, moment, end }: Target,
  promote: boolean,
): Promise<void> {
  const restored = keep(
    await server.createRestored(async (dataDir) => {
      const mapping = spaces.flatMap(({ oid, location }) => [
        '-T',
        `${location}=${join(dirname(dataDir), `space ${oid}`)}`,
      ]);
      const action = promote && !end ? ['--action', 'promote'] : [];
      const { stdout } = await walkeepDone([
        ...['restore', '--json', ...args, ...action, ...mapping, archive, dataDir],
      ]);
      if (server.major > 16 || !existsSync(VERIFY)) return;
      const { id } = JSON.parse(stdout).backup;
      const manifest = join(archive, 'backups', id, 'backup_manifest');
      // With the paths to which the restore put them.
      const checked = ['-n', '-m', manifest, '-i', 'tablespace_map', dataDir];
      execFileSync(VERIFY, checked, { ...serverUser, cwd: '/', env: {} });
    }),
  );
  restored.environment = {};
  await restored.start();
  const state = async () =>
    (await restored.sql('SELECT pg_is_in_recovery() AS r'))[0]?.r === false
      ? 'promoted'
      : ((await restored.sql('SELECT pg_get_wal_replay_pause_state() AS s'))[0]?.s as string);
  const stays = end || promote ? 'promoted' : 'paused';
  await waitFor(async () => (await state()) === stays, { what: `a server that is ${stays}` });
  expect(await rows.digest(restored), `${what} ${args.join(' ')}`).toBe(moment.digest);
  if (stays === 'paused') {
    await restored.sql('SELECT pg_wal_replay_resume()');
    await waitFor(async () => (await state()) === 'promoted', { what: 'the end of recovery' });
    expect(await rows.digest(restored)).toBe(moment.digest);
  }
  await readsEveryPage(restored);
  // Its commits wait for nobody.
  await restored.sql('CREATE TABLE goes_on AS SELECT 1');
  await restored.destroy();
}

describe.each(MAJORS)('PostgreSQL %i, on three timelines', (major) => {
  test(`gives the rows of each moment back, seed ${SEED}`, async () => {
    const random = new Random(SEED + major);
    const told = await story(major);
    const done: Record<string, number> = {};
    for (let run = 0; run < RUNS; run++) {
      const todo = targets(told, random);
      const worker = async () => {
        for (let next = todo.shift(); next; next = todo.shift()) {
          await restoreAndCompare(told, next, random.chance(0.5));
          done[next.what] = (done[next.what] ?? 0) + 1;
        }
      };
      // Most of it is waiting for the disk.
      await Promise.all([worker(), worker()]);
    }
    expect(Object.values(done)).toEqual(Array(8).fill(RUNS));
  });
});
