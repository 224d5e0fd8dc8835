import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { Random } from '../simulation/random.js';
import { disposer } from '../support/cleanup.js';
import { type CliRun, runCli } from '../support/cli.js';
import { died, dyingAt, type Stage } from '../support/dying-at.js';
import { killAt } from '../support/killed-at.js';
import { expectNoServer, MAJOR, spacedServer, VERIFY } from '../support/killed-server.js';
import { waitEqual } from '../support/receiving.js';
import {
  handOver,
  installedCommand,
  readsEveryPage,
  recovered,
  walkeepDone,
} from '../support/restoring.js';
import { giveToServer, scratchDir, serverUser } from '../support/scratch.js';
import { wholeBackups } from '../support/whole-backups.js';

/** Kills at any instant beside those at its stages; WALKEEP_KILLS=100 for more of them. */
const KILLS = Number(process.env.WALKEEP_KILLS ?? 1);
const SEED = Number(process.env.WALKEEP_KILLS_SEED ?? Date.now() % 1_000_000);

vi.setConfig({ testTimeout: 300_000 + 40_000 * (KILLS + 7) });

const keep = disposer();
const random = new Random(SEED);

test(`a delta that is killed whenever it may be cannot be started, and the next one ends it, seed ${SEED}`, async () => {
  const { server, rows, space, archive, receiver } = await spacedServer(keep, { rows: 20_000 });
  await walkeepDone(['backup', '-d', server.conninfo(), archive]);
  const [{ id } = { id: '' }] = wholeBackups(archive).complete;
  await rows.commits(server, { most: 3 });
  await server.sql('DELETE FROM bulk WHERE i % 50 = 1');
  await server.sql('CREATE DATABASE later');
  await server.sql('CREATE TABLE later AS SELECT generate_series(1, 50000) i');
  await server.sql('CHECKPOINT');
  await rows.commits(server, { most: 3 });
  await waitEqual(archive, server);
  await server.kill9();
  await receiver.stop();
  handOver(archive);
  const lostWal = walIn(join(server.dataDir, 'pg_wal')).sort();
  const lostControl = readFileSync(join(server.dataDir, 'global/pg_control'));

  let places = { dataDir: '', space: '' };
  /** The directories of the lost server once more. */
  const another = (data?: string): void => {
    const dir = data === undefined ? scratchDir('lost', { forServer: true }) : dirname(data);
    places = { dataDir: data ?? join(dir, 'data'), space: join(dir, 'space') };
    copyLost(server.dataDir, space, places);
  };
  const run = (stage?: Stage): CliRun => {
    const command = `PATH=${dirname(process.execPath)}:$PATH ${installedCommand()} fetch ${archive} %f %p`;
    const mapping = ['-T', `${space}=${places.space}`, '--restore-command', command];
    return keep(
      runCli(['restore', '--delta', ...mapping, archive, places.dataDir], dyingAt(stage)),
    );
  };
  const succeeds = async (): Promise<void> => {
    const one = run();
    expect(await one.exit, one.stderr).toEqual({ code: 0, signal: null });
  };
  another();
  const began = performance.now();
  await succeeds();
  const course = { ms: performance.now() - began };
  const control = (): string => join(places.dataDir, 'global/pg_control');
  const isHalf = () => !existsSync(control()) || !existsSync(join(places.dataDir, 'pg_wal'));
  const isSafe = async (): Promise<void> => {
    if (isHalf()) {
      expectNoServer(places.dataDir);
      const plain = keep(runCli(['restore', archive, places.dataDir]));
      expect((await plain.exit).code).toBe(3);
    } else if (!readFileSync(control()).equals(lostControl)) {
      expectWhole(archive, id, places.dataDir);
    } else expect(readdirSync(places.dataDir).filter(isOldWal)).toEqual([]);
  };
  const endsIt = async (): Promise<void> => {
    await succeeds();
    expectWhole(archive, id, places.dataDir);
    expect(readdirSync(places.dataDir).filter((name) => name.startsWith('.walkeep'))).toEqual([]);
    // All WAL that the lost server had is kept, whatever it was cut short by.
    const kept = readdirSync(places.dataDir).filter(isOldWal);
    expect(kept.flatMap((name) => walIn(join(places.dataDir, name))).sort()).toEqual(lostWal);
    rmSync(dirname(places.dataDir), { recursive: true });
    another();
  };
  another();
  for (const stage of STAGES) {
    await died(run(stage), stage);
    expect(isHalf(), stage.what).toBe(stage.isHalf);
    const ours = readdirSync(places.dataDir).filter((name) => name.startsWith('.walkeep'));
    if (stage.leaves) expect(ours).toEqual(stage.leaves);
    await isSafe();
    // Or the next one is killed on its way to the end, too.
    if (random.chance(0.5)) await endsIt();
  }
  let killed = 0;
  for (let kills = 0; kills < KILLS || killed < KILLS / 4; kills++) {
    // It begins to write behind half of that, about.
    const end = performance.now() + course.ms * (0.2 + random.below(800) / 1000);
    const { signal } = await killAt(run(), { what: 'ms', reached: () => performance.now() >= end });
    course.ms *= signal ? 1.05 : 0.85;
    if (signal) killed += 1;
    await isSafe();
    if (random.chance(0.4) || kills >= KILLS - 1) await endsIt();
  }
  // The last of them is a server.
  const restored = keep(
    await server.createRestored(async (dataDir) => {
      another(dataDir);
      await died(run(DISARMED), DISARMED);
      await succeeds();
    }),
  );
  await restored.start();
  await recovered(restored);
  expect(await rows.digest(restored)).toBe(rows.last.digest);
  await readsEveryPage(restored);
});

const DISARMED: Stage = {
  ...{ what: 'disarmed', when: 'after', call: 'rename', path: /\/pg_control\.walkeep-old$/ },
};
const SETTLED: Stage = {
  ...{ what: 'settled', when: 'before', call: 'rename', path: /\/pg_control\.walkeep-restore$/ },
};
const STAGES: readonly (Stage & { isHalf: boolean; leaves?: string[] })[] = [
  {
    ...{ what: 'begun', when: 'after', call: 'rename', path: /\/\.walkeep-delta$/ },
    isHalf: false,
  },
  {
    ...{ what: 'the old WAL is put aside', when: 'after', call: 'rename', path: /\/pg_wal\.\w+$/ },
    isHalf: true,
  },
  { ...DISARMED, isHalf: true },
  {
    ...{ what: 'compared', when: 'after', call: 'mkdir', path: /\/pg_wal$/ },
    isHalf: true,
  },
  { ...SETTLED, isHalf: true },
  { ...SETTLED, what: 'a server', when: 'after', isHalf: false },
  {
    ...{ what: 'all but done', when: 'before', call: 'unlink', path: /\/\.walkeep-delta$/ },
    ...{ isHalf: false, leaves: ['.walkeep-delta'] },
  },
];

const walIn = (directory: string) =>
  readdirSync(directory).filter((name) => /^[0-9A-F]{24}$/.test(name));

const isOldWal = (name: string) => /^pg_wal\.\d/.test(name);

function copyLost(dataDir: string, space: string, to: { dataDir: string; space: string }): void {
  execFileSync('cp', ['-a', dataDir, to.dataDir]);
  execFileSync('cp', ['-a', space, to.space]);
  const links = join(to.dataDir, 'pg_tblspc');
  for (const name of readdirSync(links)) {
    rmSync(join(links, name));
    symlinkSync(to.space, join(links, name));
    giveToServer(links);
  }
}

/** All files of the backup are there as they were, and no others. */
function expectWhole(archive: string, id: string, dataDir: string): void {
  if (MAJOR > 16 || !existsSync(VERIFY)) return;
  const manifest = join(archive, 'backups', id, 'backup_manifest');
  const isOurs = (name: string) => isOldWal(name) || name.startsWith('.walkeep-');
  const ignored = ['tablespace_map', ...readdirSync(dataDir).filter(isOurs)];
  const args = ['-n', '-m', manifest, ...ignored.flatMap((name) => ['-i', name])];
  execFileSync(VERIFY, [...args, dataDir], { ...serverUser, cwd: '/', env: {} });
}
