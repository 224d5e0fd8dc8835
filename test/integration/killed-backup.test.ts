import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, test, vi } from 'vitest';
import type { BackupRecord } from '../../src/base/backup-record.js';
import { SmallDisk } from '../chaos/small-disk.js';
import { Random } from '../simulation/random.js';
import { disposer } from '../support/cleanup.js';
import { type CliRun, runCli } from '../support/cli.js';
import { died, dyingAt, type Stage } from '../support/dying-at.js';
import { below, courseOf, instantOf, killAt } from '../support/killed-at.js';
import { expectNoServer, MAJOR, spacedServer, VERIFY } from '../support/killed-server.js';
import { isStopped } from '../support/processes.js';
import {
  handOver,
  installedCommand,
  readsEveryPage,
  recovered,
  walkeepDone,
} from '../support/restoring.js';
import { giveToServer, scratchDir, serverUser } from '../support/scratch.js';
import { TcpProxy } from '../support/tcp-proxy.js';
import { delay, waitFor } from '../support/wait.js';
import { expectClean, wholeBackups } from '../support/whole-backups.js';

/** Kills of each command beside those at its stages; WALKEEP_KILLS=70 for more of them. */
const KILLS = Number(process.env.WALKEEP_KILLS ?? 6);
const SEED = Number(process.env.WALKEEP_KILLS_SEED ?? Date.now() % 1_000_000);

vi.setConfig({ testTimeout: 240_000 + 40_000 * KILLS });

const keep = disposer();
const random = new Random(SEED);

const started = () => spacedServer(keep, { rows: 20_000 });

const backup = (archive: string, conninfo: string, more: string[] = [], stage?: Stage): CliRun => {
  const args = ['backup', '--json', '-P', '-w', '-d', conninfo, ...more, archive];
  return keep(runCli(args, dyingAt(stage)));
};

/** The last line that it printed. */
const resultOf = (run: CliRun) => JSON.parse(run.stdout.trim().split('\n').at(-1) as string);

async function succeeds(run: CliRun): Promise<CliRun> {
  expect(await run.exit, run.stderr + run.stdout).toEqual({ code: 0, signal: null });
  return run;
}

describe(`killed whenever it may be, seed ${SEED}`, () => {
  test('a backup is there as a whole or not at all, and the next one cleans up', async () => {
    const { server, archive } = await started();
    const run = (stage?: Stage) => backup(archive, server.conninfo(), [], stage);
    const course = await courseOf(() => run(), [join(archive, 'backups'), join(archive, 'lease')]);
    const known = new Set<string>();
    const cleansUp = async (what: string): Promise<void> => {
      const { begun, complete } = wholeBackups(archive, known);
      const next = resultOf(await succeeds(run()));
      expect(next.cleaned.sort(), what).toEqual(begun);
      expectClean(archive);
      expect(wholeBackups(archive, known).complete).toHaveLength(complete.length + 1);
    };
    for (const stage of BACKUP_STAGES) {
      await died(run(stage), stage);
      expect(wholeBackups(archive, known).begun, stage.what).toHaveLength(stage.leaves);
      await cleansUp(stage.what);
    }
    let killed = 0;
    for (let kills = 0; kills < KILLS || killed < KILLS / 2; kills++) {
      const instant = instantOf(course, random);
      const { signal } = await killAt(run(), instant, course);
      if (signal) killed += 1;
      wholeBackups(archive, known);
      if (random.chance(0.3) || kills >= KILLS - 1) await cleansUp(instant.what);
    }
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
    const run = (stage?: Stage) =>
      keep(runCli(['expire', '--redundancy', '1', archive], dyingAt(stage)));
    const endsIt = async (): Promise<void> => {
      expect(wholeBackups(archive).complete.at(-1)?.id).toBe(newest);
      const mapping = ['-T', `${space}=${join(target, 'space')}`];
      const plan = ['restore', '-n', '--no-try-fetch', ...mapping];
      await walkeepDone([...plan, archive, join(target, 'data')]);
      await succeeds(run());
      const { complete, begun } = wholeBackups(archive);
      expect([complete.map(({ id }) => id), begun]).toEqual([[newest], []]);
    };
    for (const stage of EXPIRE_STAGES) {
      another();
      await died(run(stage), stage);
      expect(wholeBackups(archive).begun, stage.what).toHaveLength(stage.leaves);
      await endsIt();
    }
    another();
    const began = performance.now();
    await succeeds(run());
    const course = { ms: performance.now() - began };
    let killed = 0;
    for (let kills = 0; kills < KILLS || killed < KILLS / 4; kills++) {
      another();
      const one = run();
      const end = performance.now() + course.ms * (0.3 + random.below(700) / 1000);
      const instant = { what: 'ms', reached: () => performance.now() >= end };
      const { signal } = await killAt(one, instant);
      course.ms *= signal ? 1.1 : 0.8;
      if (signal) killed += 1;
      await endsIt();
    }
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
    const run = (stage?: Stage, { dataDir, space: to } = places): CliRun => {
      const command = `PATH=${dirname(process.execPath)}:$PATH ${installedCommand()} fetch ${archive} %f %p`;
      const mapping = ['-T', `${space}=${to}`, '--restore-command', command];
      return keep(runCli(['restore', ...mapping, archive, dataDir], dyingAt(stage)));
    };
    let directories = another();
    const isStartable = () => existsSync(join(places.dataDir, 'global/pg_control'));
    const isSafe = () =>
      isStartable() ? expectWhole(archive, id, places.dataDir) : expectNoServer(places.dataDir);
    const endsIt = async (done: boolean): Promise<void> => {
      await succeedsOrIsThere(run(), done);
      expectWhole(archive, id, places.dataDir);
      for (const directory of directories) {
        expect(ownNames(directory, '')).toEqual([]);
      }
      directories = another();
    };
    const course = await courseOf(() => run(), directories);
    directories = another();
    for (const stage of RESTORE_STAGES) {
      await died(run(stage), stage);
      const isHalf = !isStartable() && existsSync(join(places.dataDir, 'PG_VERSION'));
      expect(isHalf, stage.what).toBe(stage.isHalf);
      if (stage.leaves) expect(ownNames(places.dataDir, '')).toEqual(stage.leaves);
      isSafe();
      await endsIt(false);
    }
    let killed = 0;
    for (let kills = 0; kills < KILLS || killed < KILLS / 2; kills++) {
      const { signal } = await killAt(run(), instantOf({ ...course, directories }, random), course);
      if (signal) killed += 1;
      isSafe();
      if (random.chance(0.4) || kills >= KILLS - 1) await endsIt(signal === null);
    }
    // The last of them is a server.
    const restored = keep(
      await server.createRestored(async (dataDir) => {
        const there = { dataDir, space: join(dirname(dataDir), 'space') };
        await died(run(SETTLED, there), SETTLED);
        await succeedsOrIsThere(run(undefined, there), false);
      }),
    );
    expectClean(archive);
    await restored.start();
    await recovered(restored);
    expect(await rows.digest(restored)).toBe(rows.last.digest);
    await readsEveryPage(restored);
  });
});

const BACKUP_STAGES: readonly (Stage & { leaves: number })[] = [
  { what: 'claimed', when: 'after', call: 'link', path: /\/claim\.json$/, leaves: 1 },
  { what: 'a volume', when: 'after', call: 'link', path: /\/base\.tar\.gz\.0000$/, leaves: 1 },
  { what: 'all but one', when: 'before', call: 'link', path: /\/backup\.json$/, leaves: 1 },
  { what: 'whole', when: 'after', call: 'link', path: /\/backup\.json$/, leaves: 0 },
];

const EXPIRE_STAGES: readonly (Stage & { leaves: number })[] = [
  { what: 'settled', when: 'before', call: 'unlink', path: /\/backup\.json$/, leaves: 0 },
  { what: 'none any more', when: 'after', call: 'unlink', path: /\/backup\.json$/, leaves: 1 },
  { what: 'removed', when: 'after', call: 'unlink', path: /\/base\.tar\.gz\.0000$/, leaves: 1 },
];

const SETTLED: Stage = {
  ...{ what: 'settled', when: 'before', call: 'rename', path: /\/global\/pg_control$/ },
};
const RESTORE_STAGES: readonly (Stage & { isHalf: boolean; leaves?: string[] })[] = [
  {
    ...{ what: 'begun', when: 'after', call: 'rename', path: /\/data\/\.walkeep-restore$/ },
    isHalf: false,
  },
  {
    ...{ what: 'written', when: 'before', call: 'rename', path: /\/tablespace_map$/ },
    isHalf: true,
  },
  { ...SETTLED, isHalf: true },
  { ...SETTLED, what: 'a server', when: 'after', isHalf: false },
  {
    ...{ what: 'all but done', when: 'after', call: 'unlink', path: /\/space\/\.walkeep-restore$/ },
    ...{ isHalf: false, leaves: ['.walkeep-restore'] },
  },
];

/** A run that was not killed has restored: what it made is somebody's now. */
async function succeedsOrIsThere(run: CliRun, done: boolean): Promise<void> {
  const { code } = await run.exit;
  if (done) expect([0, 3], run.stderr).toContain(code);
  else if (code === 3) expect(run.stderr).toMatch(/is not empty/);
  else expect(code, run.stderr).toBe(0);
}

/** What a restore that was killed at its very end has not removed. */
const ownNames = (dataDir: string, at: string) =>
  readdirSync(join(dataDir, at))
    .filter((name) => name.startsWith('.walkeep-'))
    .map((name) => join(at, name));

/** All files of the backup are there as they were. */
function expectWhole(archive: string, id: string, dataDir: string): void {
  if (MAJOR > 16 || !existsSync(VERIFY)) return;
  const manifest = readFileSync(join(archive, 'backups', id, 'backup_manifest'));
  expect(readFileSync(join(dataDir, 'backup_manifest')).equals(manifest)).toBe(true);
  const spaces = readdirSync(join(dataDir, 'pg_tblspc')).map((oid) => join('pg_tblspc', oid));
  const ignored = ['tablespace_map', ...['', ...spaces].flatMap((at) => ownNames(dataDir, at))];
  const args = ['-n', ...ignored.flatMap((name) => ['-i', name])];
  execFileSync(VERIFY, [...args, dataDir], { ...serverUser, cwd: '/', env: {} });
}

test('a backup whose server goes away fails, and leaves nothing', async () => {
  const { server, archive } = await started();
  const proxy = await TcpProxy.listen(server.port);
  keep(proxy);
  await succeeds(backup(archive, proxy.conninfo()));
  const whole = proxy.forwarded;
  for (let cuts = 0; cuts < Math.max(5, KILLS / 4); cuts++) {
    proxy.after(1 + random.below(Math.round(whole * 0.9)), 'cut');
    const run = backup(archive, proxy.conninfo());
    expect((await run.exit).code, run.stdout).toBe(1);
    expectClean(archive);
    expect(wholeBackups(archive).complete).toHaveLength(1);
  }
  proxy.after(Number.POSITIVE_INFINITY, 'cut');
  expect(resultOf(await succeeds(backup(archive, proxy.conninfo()))).cleaned).toEqual([]);
});

/** Has it stand still when it has written so much; false if it was too fast for that. */
async function standsStill(run: CliRun, written: () => number, least: number): Promise<boolean> {
  while (run.running && written() <= least) await Promise.race([delay(1), run.exit]);
  run.child.kill('SIGSTOP');
  await waitFor(() => !run.running || isStopped(run.pid), { what: 'it to stand still' });
  return run.running && written() < least + 5_000_000;
}

test('no space for a backup, or for a restore: it fails, and succeeds when there is', async (context) => {
  const { disk, why } = SmallDisk.create(1);
  using _ = disk;
  if (!disk.canFill) return context.skip(`no file system of its own: ${why}`);
  const { server, space } = await started();
  giveToServer(disk.directory);
  const archive = join(disk.directory, 'archive');
  mkdirSync(archive);
  const take = () => backup(archive, server.conninfo(), ['--wal', 'include']);
  await succeeds(take());
  const { objects = [] } = wholeBackups(archive).complete[0] ?? {};
  // The next one may bring fewer segments of WAL along.
  const tars = objects.filter(({ name }) => /\.tar/.test(name));
  const needed = tars.reduce((sum, { size }) => sum + size, 0);
  for (let round = 0; round < Math.max(3, KILLS / 8); round++) {
    disk.fill(random.below(needed * 0.9));
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
    let one = run();
    while (!(await standsStill(one, () => below([dataDir]).bytes, at))) {
      // It was faster than we were.
      await one.stop('SIGKILL');
      for (const made of [dataDir, join(disk.directory, 'space')])
        rmSync(made, { recursive: true });
      one = run();
    }
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
