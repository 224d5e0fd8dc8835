import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { readLedger } from '../../src/archive/ledger.js';
import { disposer } from '../support/cleanup.js';
import { runCli, unfolded } from '../support/cli.js';
import { caughtUp } from '../support/failover.js';
import { copyPackage } from '../support/package-copy.js';
import { MAJORS, type Major, OUTER_MAJORS, PostgresServer } from '../support/postgres.js';
import { archiveDirectory, receive, waitEqual, writeWal } from '../support/receiving.js';
import { serverUser } from '../support/scratch.js';
import { waitFor } from '../support/wait.js';

vi.setConfig({ testTimeout: 300_000 });

const keep = disposer();
const NEWEST = MAJORS.at(-1) as Major;

let shared: string | undefined;
/** A command of the package, as the servers' user runs it. */
function walkeep(command: string): string {
  shared ??= copyPackage();
  return `${process.execPath} ${join(shared, 'bin', 'walkeep')} ${command}`;
}

/** Gives all of an archive to the servers' user. */
function handOver(archive: string): void {
  const { uid, gid } = serverUser;
  if (uid !== undefined) execFileSync('chown', ['-R', `${uid}:${gid}`, archive]);
}

async function cli(...args: string[]) {
  const run = keep(runCli(args));
  return { code: (await run.exit).code, stdout: run.stdout, stderr: run.stderr };
}

/** Codes of what verify finds, but for what is only information unless asked for. */
async function findings(archive: string, infos = false): Promise<string[]> {
  const { stdout } = await cli('verify', '--json', archive);
  const found = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  return found
    .filter((f) => f.type === 'finding' && (infos || f.severity !== 'info'))
    .map((f) => `${f.severity} ${f.code} ${f.file}`);
}

/** A server recovered from the archive, promoted at a restore point of timeline 1. */
async function recoveredTo(origin: PostgresServer, backup: string, archive: string, point: string) {
  handOver(archive);
  const server = keep(
    await origin.recoverFrom({
      backup,
      archive: true,
      restoreCommand: walkeep(`fetch ${archive} %f %p`),
      targetSettings: {
        recovery_target_action: 'promote',
        recovery_target_timeline: '1',
        recovery_target_name: point,
      },
    }),
  );
  await waitFor(async () => (await server.sql('SELECT pg_is_in_recovery() AS r'))[0]?.r === false, {
    what: 'the end of recovery',
  });
  return server;
}

/** Receives all that a server has. */
async function receiveAll(
  archive: string,
  server: PostgresServer,
  timeline: number,
  others: PostgresServer[],
  args: string[] = [],
) {
  const run = keep(receive(archive, server.conninfo(), args));
  await run.waitForOutput(/starting log streaming/);
  await waitEqual(archive, server, { timeline, others });
  expect(await run.stop()).toEqual({ code: 0, signal: null });
  return run.stderr;
}

/** Rows of table t in the order of their numbers. */
const rows = async (server: PostgresServer) =>
  (await server.sql<{ n: number }>('SELECT n FROM t ORDER BY n')).map((row) => row.n);

const insert = (server: PostgresServer, n: number) => server.sql(`INSERT INTO t VALUES (${n})`);

test.each(OUTER_MAJORS)(
  'PostgreSQL %i: a second recovery from the same backup is followed, the first stays as a branch',
  async (major) => {
    const primary = keep(await PostgresServer.create({ major, archive: true }));
    const archive = archiveDirectory();
    const run = keep(receive(archive, primary.conninfo(), ['--synchronous']));
    await run.waitForOutput(/starting log streaming/);
    await primary.sql('CREATE TABLE t (n int)');
    const backup = await primary.baseBackup();
    for (const [n, point] of ['early', 'middle', 'late'].entries()) {
      await insert(primary, n);
      await primary.sql(`SELECT pg_create_restore_point('${point}')`);
      await writeWal(primary, 1_300_000);
    }
    await waitEqual(archive, primary);
    expect(await run.stop()).toEqual({ code: 0, signal: null });
    await primary.stop();

    const second = await recoveredTo(primary, backup, archive, 'middle');
    await insert(second, 22);
    await writeWal(second, 1_300_000);
    await receiveAll(archive, second, 2, [primary], ['--synchronous']);
    await second.stop();

    // Its fork is earlier, and then later than that of timeline 2.
    const others = [primary, second];
    for (const [timeline, point] of [
      [3, 'early'],
      [4, 'late'],
    ] as const) {
      const next = await recoveredTo(primary, backup, archive, point);
      await insert(next, timeline * 11);
      const { stdout } = await cli('check', '-D', archive, '-d', next.conninfo());
      expect(unfolded(stdout)).toContain(`beside the server's timeline ${timeline}:`);
      await writeWal(next, 1_300_000);
      const told = await receiveAll(archive, next, timeline, others, ['--synchronous']);
      expect(told).toMatch(`does not go on with timeline ${timeline - 1}`);
      // Once is enough.
      const again = await receiveAll(archive, next, timeline, others, ['--synchronous']);
      expect(again).not.toContain('warning');
      await next.stop();
      others.push(next);
    }
    expect((await readLedger(archive))?.timeline).toBe(4);
    expect(await findings(archive)).toEqual([]);
    expect(await findings(archive, true)).toEqual([
      'info abandoned-branch 00000002.history',
      'info abandoned-branch 00000003.history',
    ]);
    const { stdout } = await cli('list', archive);
    expect(stdout).toMatch(/├ timeline 2, branched off 1/);
    expect(stdout).not.toContain('missing');

    // Every branch can be recovered, to its end.
    handOver(archive);
    for (const [timeline, expected] of [
      ['2', [0, 1, 22]],
      ['3', [0, 33]],
      ['latest', [0, 1, 2, 44]],
    ] as const) {
      const server = keep(
        await primary.recoverFrom({
          backup,
          restoreCommand: walkeep(`fetch ${archive} %f %p`),
          targetSettings: { recovery_target_timeline: timeline },
        }),
      );
      await waitFor(
        async () => (await server.sql('SELECT pg_is_in_recovery() AS r'))[0]?.r === false,
        { what: 'the end of recovery' },
      );
      expect(await rows(server)).toEqual(expected);
      await server.destroy();
    }
  },
);

test('the old primary becomes another timeline after its promoted standby was lost', async () => {
  const primary = keep(await PostgresServer.create({ major: NEWEST, archive: true }));
  const standby = keep(await primary.createStandby({ archive: true }));
  const archive = archiveDirectory();
  const run = keep(receive(archive, primary.conninfo(), ['--synchronous']));
  await run.waitForOutput(/starting log streaming/);
  await writeWal(primary, 1_300_000);
  await waitEqual(archive, primary);
  await caughtUp(primary, standby);
  expect(await run.stop()).toEqual({ code: 0, signal: null });
  await standby.promote();
  await writeWal(standby, 2_300_000);
  await receiveAll(archive, standby, 2, [primary], ['--synchronous']);
  await standby.stop();

  await writeWal(primary, 1_300_000);
  await primary.stop();
  // It sees that there is a timeline 2, and becomes the next one.
  handOver(archive);
  await primary.configure({
    restore_command: walkeep(`fetch ${archive} %f %p`),
    recovery_target_timeline: '1',
  });
  await primary.append('recovery.signal', '');
  await primary.start();
  await waitFor(
    async () => (await primary.sql('SELECT pg_is_in_recovery() AS r'))[0]?.r === false,
    { what: 'the end of recovery' },
  );
  await writeWal(primary, 1_300_000);
  await receiveAll(archive, primary, 3, [standby], ['--synchronous']);
  expect(await findings(archive)).toEqual([]);
});

test('what a clone pushes does not stop the receiver of the production server', async () => {
  const primary = keep(await PostgresServer.create({ major: NEWEST, archive: true }));
  const archive = archiveDirectory();
  const run = keep(receive(archive, primary.conninfo(), ['--synchronous']));
  await run.waitForOutput(/starting log streaming/);
  await writeWal(primary, 700_000);
  await waitEqual(archive, primary);
  // It is written first when something is recorded, and then belongs to who receives.
  await waitFor(() => existsSync(join(archive, '.walkeep-ledger')), { what: 'the ledger' });
  handOver(archive);
  const clone = keep(
    await primary.createStandby({
      settings: {
        archive_mode: 'on',
        archive_command: walkeep(`push ${archive} %p`),
      },
    }),
  );
  await caughtUp(primary, clone);
  await clone.promote();
  await writeWal(clone, 3_300_000);
  const last = await clone.switchWal();
  await waitFor(() => existsSync(join(archive, last)), { what: `${last} to be pushed` });
  await clone.destroy();
  expect(existsSync(join(archive, '00000002.history'))).toBe(true);

  // The connection is lost, and made again.
  for (const pid of await primary.walSenderPids()) {
    await primary.sql(`SELECT pg_terminate_backend(${pid})`);
  }
  await run.waitForOutput(/timeline 2, which was never received here[\s\S]*starting log streaming/);
  await writeWal(primary, 1_300_000);
  await waitFor(
    async () =>
      ((await readLedger(archive))?.end ?? 0n) / BigInt(primary.segmentSize) ===
      (await primary.currentLsn()) / BigInt(primary.segmentSize),
    { what: 'the receiver to follow' },
  );
  expect(await run.stop()).toEqual({ code: 0, signal: null });
  expect((await readLedger(archive))?.lineage.map((l) => l.timeline)).toEqual([1]);
  expect(await findings(archive)).toEqual(['warning unfollowed-timeline 00000002.history']);
  const checked = await cli('check', '-D', archive, '-d', primary.conninfo());
  expect(unfolded(checked.stdout)).toMatch(/timeline 2 .*never/);
  expect(unfolded(checked.stdout)).not.toContain('old primary, or');
});

test('a server that has lost its history file is streamed from, as the archive has it', async () => {
  const primary = keep(await PostgresServer.create({ major: NEWEST, archive: true }));
  const standby = keep(await primary.createStandby({ archive: true }));
  await caughtUp(primary, standby);
  await standby.promote();
  const archive = archiveDirectory();
  await writeWal(standby, 300_000);
  await receiveAll(archive, standby, 2, [primary]);
  const lost = join(standby.dataDir, 'pg_wal', '00000002.history');
  const content = readFileSync(lost);
  rmSync(lost);
  await writeWal(standby, 1_300_000);
  expect(await receiveAll(archive, standby, 2, [primary])).toMatch(
    /has lost its history file "00000002.history"/,
  );
  const checked = await cli('check', '-D', archive, '-d', standby.conninfo());
  expect(checked.stdout).toMatch(/ok +timeline/i);

  // The archive's is damaged, and the server has a good one.
  writeFileSync(lost, content);
  const stored = join(archive, '00000002.history');
  writeFileSync(stored, '');
  expect(await findings(archive)).toContain('error history-damaged 00000002.history');
  expect(await receiveAll(archive, standby, 2, [primary])).toMatch(/was damaged; it was replaced/);
  expect(readFileSync(stored)).toEqual(content);
  expect(await findings(archive)).toEqual([]);
});
