import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, test, vi } from 'vitest';
import type { BackupRecord } from '../../src/base/backup-record.js';
import { SmallDisk } from '../chaos/small-disk.js';
import { Random } from '../simulation/random.js';
import { binDir } from '../support/binaries.js';
import { disposer } from '../support/cleanup.js';
import { type CliRun, runCli } from '../support/cli.js';
import { below, courseOf, instantOf, killAt } from '../support/killed-at.js';
import { MAJORS, type Major, PostgresServer } from '../support/postgres.js';
import { archiveDirectory, receive } from '../support/receiving.js';
import { RecordedRows } from '../support/recorded-rows.js';
import { handOver, installedCommand, readsEveryPage, walkeepDone } from '../support/restoring.js';
import { giveToServer, scratchDir, serverUser } from '../support/scratch.js';
import { TcpProxy } from '../support/tcp-proxy.js';
import { delay, waitFor } from '../support/wait.js';
import { expectClean, wholeBackups } from '../support/whole-backups.js';

/** Kills of each command; WALKEEP_KILLS=70 for more of them. */
const KILLS = Number(process.env.WALKEEP_KILLS ?? 14);
const SEED = Number(process.env.WALKEEP_KILLS_SEED ?? Date.now() % 1_000_000);
const VERIFY = '/usr/lib/postgresql/15/bin/pg_verifybackup';
const MAJOR: Major = MAJORS.includes(15) ? 15 : (MAJORS[0] as Major);

vi.setConfig({ testTimeout: 60_000 + 15_000 * KILLS });

const keep = disposer();
const random = new Random(SEED);

/** A server with a tablespace, and an archive that receives its WAL. */
async function started() {
  const server = keep(
    await PostgresServer.create({ major: MAJOR, initdbArgs: ['--data-checksums'] }),
  );
  const space = join(server.dir, 'space');
  mkdirSync(space);
  giveToServer(space);
  await server.sql(`CREATE TABLESPACE space LOCATION '${space}'`);
  const rows = new RecordedRows([undefined, 'space']);
  await rows.prepare(server);
  await server.sql(`CREATE TABLE bulk TABLESPACE space AS
    SELECT i, repeat(md5(i::text), 20) AS t FROM generate_series(1, 20000) i`);
  await rows.commits(server, { most: 3 });
  const archive = archiveDirectory();
  const receiver = keep(receive(archive, server.conninfo()));
  await receiver.waitForOutput(/starting log streaming/);
  return { server, rows, space, archive, receiver };
}

const backup = (archive: string, conninfo: string, ...more: string[]): CliRun =>
  keep(runCli(['backup', '--json', '-P', '-w', '-d', conninfo, ...more, archive]));

/** The last line that it printed. */
const resultOf = (run: CliRun) => JSON.parse(run.stdout.trim().split('\n').at(-1) as string);

async function succeeds(run: CliRun): Promise<CliRun> {
  expect(await run.exit, run.stderr + run.stdout).toEqual({ code: 0, signal: null });
  return run;
}

describe(`killed whenever it may be, seed ${SEED}`, () => {
  test('a backup is there as a whole or not at all, and the next one cleans up', async () => {
    const { server, archive } = await started();
    const run = () => backup(archive, server.conninfo());
    const course = await courseOf(run, [join(archive, 'backups'), join(archive, 'lease')]);
    const known = new Set<string>();
    let killed = 0;
    let cleaned = 0;
    for (let kills = 0; kills < KILLS; kills++) {
      const { signal } = await killAt(run(), instantOf(course, random), course);
      if (signal) killed += 1;
      const { begun, complete } = wholeBackups(archive, known);
      if (!random.chance(0.3) && kills < KILLS - 1) continue;
      const next = resultOf(await succeeds(run()));
      expect(next.cleaned.sort()).toEqual(begun);
      cleaned += begun.length;
      expectClean(archive);
      expect(wholeBackups(archive, known).complete).toHaveLength(complete.length + 1);
    }
    expect(killed).toBeGreaterThan(KILLS / 2);
    expect(cleaned).toBeGreaterThan(0);
  });

  test('an expire leaves whole backups only, and the next one removes the rest', async () => {
    const { server, rows, space, archive: origin, receiver } = await started();
    for (let n = 0; n < 3; n++) {
      await succeeds(backup(origin, server.conninfo()));
      await rows.commits(server, { most: 2 });
      await server.switchWal();
    }
    await receiver.stop();
    const newest = wholeBackups(origin).complete.at(-1)?.id;
    const target = scratchDir('target', { forServer: true });
    let archive = '';
    const another = () => {
      archive = join(scratchDir('expired'), 'archive');
      cpSync(origin, archive, { recursive: true, preserveTimestamps: true });
      return [archive];
    };
    const run = () => keep(runCli(['expire', '--redundancy', '1', archive]));
    another();
    const began = performance.now();
    await succeeds(run());
    const course = { ms: performance.now() - began };
    let killed = 0;
    for (let kills = 0; kills < KILLS; kills++) {
      another();
      const one = run();
      const end = performance.now() + course.ms * (0.3 + random.below(700) / 1000);
      const instant = { what: 'ms', reached: () => performance.now() >= end };
      const { signal } = await killAt(one, instant);
      course.ms *= signal ? 1.1 : 0.8;
      if (signal) killed += 1;
      expect(wholeBackups(archive).complete.at(-1)?.id).toBe(newest);
      const mapping = ['-T', `${space}=${join(target, 'space')}`];
      const plan = ['restore', '-n', '--no-try-fetch', ...mapping];
      await walkeepDone([...plan, archive, join(target, 'data')]);
      await succeeds(run());
      const { complete, begun } = wholeBackups(archive);
      expect([complete.map(({ id }) => id), begun]).toEqual([[newest], []]);
    }
    expect(killed).toBeGreaterThan(KILLS / 4);
  });

  test('a restore cannot be started before it is whole, and the next one makes it so', async () => {
    const { server, rows, space, archive, receiver } = await started();
    const { id } = resultOf(await succeeds(backup(archive, server.conninfo())));
    await rows.commits(server, { most: 5 });
    await server.kill9();
    await waitFor(() => receiver.stderr.includes('disconnect') || receiver.stderr.length > 0, {
      what: 'the receiver to notice',
    });
    await receiver.stop();
    handOver(archive);
    let places = { dataDir: '', space: '' };
    const another = () => {
      const dir = scratchDir('half', { forServer: true });
      places = { dataDir: join(dir, 'data'), space: join(dir, 'space') };
      return [places.dataDir, places.space];
    };
    const run = (dataDir = places.dataDir, to = places.space): CliRun => {
      const command = `PATH=${dirname(process.execPath)}:$PATH ${installedCommand()} fetch ${archive} %f %p`;
      const mapping = ['-T', `${space}=${to}`, '--restore-command', command];
      return keep(runCli(['restore', ...mapping, archive, dataDir]));
    };
    const course = await courseOf(() => run(), another());
    let killed = 0;
    let halves = 0;
    let directories = another();
    for (let kills = 0; kills < KILLS; kills++) {
      const { signal } = await killAt(run(), instantOf({ ...course, directories }, random), course);
      if (signal) killed += 1;
      if (!existsSync(join(places.dataDir, 'global/pg_control'))) {
        if (existsSync(join(places.dataDir, 'PG_VERSION'))) halves += 1;
        expectNoServer(places.dataDir);
      } else expectWhole(archive, id, places.dataDir);
      if (!random.chance(0.4) && kills < KILLS - 1) continue;
      await succeedsOrIsThere(run(), signal === null);
      expectWhole(archive, id, places.dataDir);
      for (const directory of directories) {
        expect(readdirSync(directory).filter((name) => name.startsWith('.walkeep'))).toEqual([]);
      }
      if (kills < KILLS - 1) directories = another();
    }
    expect(killed).toBeGreaterThan(KILLS / 2);
    expect(halves).toBeGreaterThan(0);
    // The last of them is a server.
    const restored = keep(
      await server.createRestored(async (dataDir) => {
        const to = join(dirname(dataDir), 'space');
        const last = run(dataDir, to);
        await killAt(last, { what: 'half', reached: () => below([to]).bytes > 1_000_000 });
        await succeedsOrIsThere(run(dataDir, to), false);
      }),
    );
    expectClean(archive);
    await restored.start();
    await waitFor(
      async () => (await restored.sql('SELECT pg_is_in_recovery() AS r'))[0]?.r === false,
      { what: 'the end of recovery' },
    );
    expect(await rows.digest(restored)).toBe(rows.last.digest);
    await readsEveryPage(restored);
  });
});

/** A run that was not killed has restored: what it made is somebody's now. */
async function succeedsOrIsThere(run: CliRun, done: boolean): Promise<void> {
  const { code } = await run.exit;
  if (done) expect([0, 3], run.stderr).toContain(code);
  else if (code === 3) expect(run.stderr).toMatch(/is not empty/);
  else expect(code, run.stderr).toBe(0);
}

/** PostgreSQL itself refuses the directory. */
function expectNoServer(dataDir: string): void {
  const { status, stderr } = spawnSync(join(binDir(MAJOR), 'postgres'), ['-D', dataDir], {
    ...serverUser,
    cwd: '/',
    env: {},
    encoding: 'utf8',
    timeout: 30_000,
  });
  expect(status, stderr).toBeGreaterThan(0);
}

/** All files of the backup are there as they were. */
function expectWhole(archive: string, id: string, dataDir: string): void {
  if (MAJOR > 16 || !existsSync(VERIFY)) return;
  const manifest = readFileSync(join(archive, 'backups', id, 'backup_manifest'));
  expect(readFileSync(join(dataDir, 'backup_manifest')).equals(manifest)).toBe(true);
  const args = ['-n', '-i', 'tablespace_map', '-i', '.walkeep-restore'];
  execFileSync(VERIFY, [...args, dataDir], { ...serverUser, cwd: '/', env: {} });
}

test('a backup whose server goes away fails, and leaves nothing', async () => {
  const { server, archive } = await started();
  const proxy = await TcpProxy.listen(server.port);
  keep(proxy);
  await succeeds(backup(archive, proxy.conninfo()));
  const whole = proxy.forwarded;
  for (let cuts = 0; cuts < Math.max(5, KILLS / 4); cuts++) {
    proxy.after(1 + random.below(Math.round(whole * 0.98)), 'cut');
    const run = backup(archive, proxy.conninfo());
    expect((await run.exit).code, run.stdout).toBe(1);
    expectClean(archive);
    expect(wholeBackups(archive).complete).toHaveLength(1);
  }
  proxy.after(Number.POSITIVE_INFINITY, 'cut');
  expect(resultOf(await succeeds(backup(archive, proxy.conninfo()))).cleaned).toEqual([]);
});

test('no space for a backup, or for a restore: it fails, and succeeds when there is', async (context) => {
  const { disk, why } = SmallDisk.create(1);
  using _ = disk;
  if (!disk.canFill) return context.skip(`no file system of its own: ${why}`);
  const { server, space } = await started();
  giveToServer(disk.directory);
  const archive = join(disk.directory, 'archive');
  mkdirSync(archive);
  const take = () => backup(archive, server.conninfo(), '--wal', 'include');
  const course = await courseOf(take, [archive]);
  for (let round = 0; round < Math.max(3, KILLS / 8); round++) {
    disk.fill(random.below(course.whole.bytes * 0.9));
    const run = take();
    expect((await run.exit).code).toBe(1);
    expect(run.stderr).toMatch(/space/i);
    expectClean(archive);
    disk.free();
  }
  await succeeds(take());
  expectClean(archive);

  const dataDir = join(disk.directory, 'data');
  const run = () => {
    const mapping = ['-T', `${space}=${join(disk.directory, 'space')}`];
    return keep(runCli(['restore', '--to', 'immediate', ...mapping, archive, dataDir]));
  };
  for (let round = 0; round < 3; round++) {
    // It looks for space before it begins, and that is gone a moment later.
    const at = random.below(10_000_000);
    const one = run();
    let ended = false;
    one.exit.then(() => {
      ended = true;
    });
    while (!ended && below([dataDir]).bytes <= at) await delay(1);
    expect(ended, one.stderr).toBe(false);
    one.child.kill('SIGSTOP');
    disk.fill(random.below(1_000_000));
    one.child.kill('SIGCONT');
    expect((await one.exit).code).toBe(1);
    expect(one.stderr).toMatch(/space/i);
    expect(existsSync(join(dataDir, 'global/pg_control'))).toBe(false);
    expectNoServer(dataDir);
    // What is there is removed first, so that nobody can tell before it begins.
    const again = run();
    expect((await again.exit).code, again.stderr).toBe(1);
    expect(again.stderr).toMatch(/space/i);
    expectNoServer(dataDir);
    disk.free();
  }
  await succeeds(run());
  const { id } = wholeBackups(archive).complete.at(-1) as BackupRecord;
  handOver(archive);
  expectWhole(archive, id, dataDir);
});
