import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { Random } from '../simulation/random.js';
import { binDir } from '../support/binaries.js';
import { disposer } from '../support/cleanup.js';
import { type CliRun, runCli } from '../support/cli.js';
import { killAt } from '../support/killed-at.js';
import { MAJORS, type Major, PostgresServer } from '../support/postgres.js';
import { archiveDirectory, receive, waitEqual } from '../support/receiving.js';
import { RecordedRows } from '../support/recorded-rows.js';
import { handOver, installedCommand, readsEveryPage, walkeepDone } from '../support/restoring.js';
import { giveToServer, scratchDir, serverUser } from '../support/scratch.js';
import { waitFor } from '../support/wait.js';
import { wholeBackups } from '../support/whole-backups.js';

/** WALKEEP_KILLS=100 for more of them. */
const KILLS = Number(process.env.WALKEEP_KILLS ?? 5);
const SEED = Number(process.env.WALKEEP_KILLS_SEED ?? Date.now() % 1_000_000);
const VERIFY = '/usr/lib/postgresql/15/bin/pg_verifybackup';
const MAJOR: Major = MAJORS.includes(15) ? 15 : (MAJORS[0] as Major);

vi.setConfig({ testTimeout: 120_000 + 20_000 * KILLS });

const keep = disposer();
const random = new Random(SEED);

test(`a delta that is killed whenever it may be cannot be started, and the next one ends it, seed ${SEED}`, async () => {
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
    SELECT i, repeat(md5(i::text), 20) AS t FROM generate_series(1, 60000) i`);
  await rows.commits(server, { most: 3 });
  const archive = archiveDirectory();
  const receiver = keep(receive(archive, server.conninfo()));
  await receiver.waitForOutput(/starting log streaming/);
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
  const lostControl = readFileSync(join(server.dataDir, 'global/pg_control'));

  let places = { dataDir: '', space: '' };
  /** The directories of the lost server once more. */
  const another = (data?: string): void => {
    const dir = data === undefined ? scratchDir('lost', { forServer: true }) : dirname(data);
    places = { dataDir: data ?? join(dir, 'data'), space: join(dir, 'space') };
    copyLost(server.dataDir, space, places);
  };
  const run = (): CliRun => {
    const command = `PATH=${dirname(process.execPath)}:$PATH ${installedCommand()} fetch ${archive} %f %p`;
    const mapping = ['-T', `${space}=${places.space}`, '--restore-command', command];
    return keep(runCli(['restore', '--delta', ...mapping, archive, places.dataDir]));
  };
  const succeeds = async (): Promise<void> => {
    const one = run();
    expect(await one.exit, one.stderr).toEqual({ code: 0, signal: null });
  };
  another();
  const began = performance.now();
  await succeeds();
  const course = { ms: performance.now() - began };
  let killed = 0;
  let halves = 0;
  another();
  for (let kills = 0; kills < KILLS; kills++) {
    // It begins to write behind half of that, about.
    const end = performance.now() + course.ms * (0.2 + random.below(800) / 1000);
    const instant = { what: 'ms', reached: () => performance.now() >= end };
    const { signal } = await killAt(run(), instant);
    course.ms *= signal ? 1.05 : 0.85;
    if (signal) killed += 1;
    const control = join(places.dataDir, 'global/pg_control');
    if (!existsSync(control)) {
      halves += 1;
      expectNoServer(places.dataDir);
      const plain = keep(runCli(['restore', archive, places.dataDir]));
      expect((await plain.exit).code).toBe(3);
    } else if (!readFileSync(control).equals(lostControl)) {
      expectWhole(archive, id, places.dataDir);
    } else expect(readdirSync(places.dataDir).filter(isOldWal)).toEqual([]);
    if (!random.chance(0.4) && kills < KILLS - 1) continue;
    await succeeds();
    expectWhole(archive, id, places.dataDir);
    expect(readdirSync(places.dataDir).filter((name) => name.startsWith('.walkeep'))).toEqual([]);
    rmSync(dirname(places.dataDir), { recursive: true });
    another();
  }
  expect(killed).toBeGreaterThan(KILLS / 4);
  if (KILLS >= 20) expect(halves).toBeGreaterThan(0);
  // The last of them is a server.
  const restored = keep(
    await server.createRestored(async (dataDir) => {
      another(dataDir);
      const gone = () => !existsSync(join(dataDir, 'global/pg_control'));
      await killAt(run(), { what: 'half', reached: gone });
      await succeeds();
    }),
  );
  await restored.start();
  await waitFor(
    async () =>
      (await restored.sql('SELECT pg_is_in_recovery() AS r').catch(() => []))[0]?.r === false,
    { what: 'the end of recovery' },
  );
  expect(await rows.digest(restored)).toBe(rows.last.digest);
  await readsEveryPage(restored);
});

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

/** All files of the backup are there as they were, and no others. */
function expectWhole(archive: string, id: string, dataDir: string): void {
  if (MAJOR > 16 || !existsSync(VERIFY)) return;
  const manifest = join(archive, 'backups', id, 'backup_manifest');
  const isOurs = (name: string) => isOldWal(name) || name.startsWith('.walkeep-');
  const ignored = ['tablespace_map', ...readdirSync(dataDir).filter(isOurs)];
  const args = ['-n', '-m', manifest, ...ignored.flatMap((name) => ['-i', name])];
  execFileSync(VERIFY, [...args, dataDir], { ...serverUser, cwd: '/', env: {} });
}
