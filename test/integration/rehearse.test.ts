import { execFile, execFileSync, spawn } from 'node:child_process';
import {
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { expect, test, vi } from 'vitest';
import { binDir } from '../support/binaries.js';
import { disposer } from '../support/cleanup.js';
import { copyPackage } from '../support/package-copy.js';
import { MAJORS, type Major, OUTER_MAJORS, PostgresServer } from '../support/postgres.js';
import { childrenOf, signal } from '../support/processes.js';
import { archiveDirectory, receive, waitEqual } from '../support/receiving.js';
import { giveToServer, killAtEnd, scratchDir, serverUser } from '../support/scratch.js';
import { backupOf } from '../support/taken-backup.js';
import { waitFor } from '../support/wait.js';
import { workload } from '../support/workload.js';

/** Kills of a rehearsal; WALKEEP_REHEARSE_KILLS=50 for more of them. */
const KILLS = Number(process.env.WALKEEP_REHEARSE_KILLS ?? 8);

vi.setConfig({ testTimeout: 180_000 + 30_000 * KILLS });

const keep = disposer();

let shared: string | undefined;

function program(): string {
  shared ??= copyPackage();
  return join(shared, 'bin', 'walkeep');
}

const environment = {
  PATH: `${dirname(process.execPath)}:${process.env.PATH}`,
  LANG: 'C.UTF-8',
};

interface Ran {
  code: number;
  stdout: string;
  stderr: string;
}

/** Arguments with which a server of that version runs as the servers' user. */
function argsFor(major: Major, scratch: string): string[] {
  const user = serverUser.uid === undefined ? [] : ['--run-as', `${serverUser.uid}`];
  return ['rehearse', ...user, '--pg-bin', binDir(major), '--scratch', scratch];
}

function rehearse(major: Major, scratch: string, ...args: string[]): Promise<Ran> {
  return new Promise((resolve) => {
    execFile(
      program(),
      [...argsFor(major, scratch), ...args],
      { env: environment },
      (error, stdout, stderr) =>
        resolve({ code: error ? Number(error.code ?? -1) : 0, stdout, stderr }),
    );
  });
}

/** Servers of ours anywhere below a directory. */
function serversBelow(directory: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        const program = basename(readlinkSync(`/proc/${pid}/exe`));
        return program === 'postgres' && readlinkSync(`/proc/${pid}/cwd`).startsWith(directory);
      } catch {
        return false;
      }
    });
}

function handOver(path: string): void {
  const { uid, gid } = serverUser;
  if (uid !== undefined) execFileSync('chown', ['-R', `${uid}:${gid}`, path]);
}

/** An archive with a backup, a tablespace, and WAL of several segments behind it. */
async function archived(major: Major): Promise<{ archive: string; id: string; rows: number }> {
  const server = keep(
    await PostgresServer.create({
      major,
      initdbArgs: ['--data-checksums'],
      settings: { archive_mode: 'on', archive_command: 'false', shared_buffers: '16MB' },
    }),
  );
  const space = join(server.dir, 'space, one');
  mkdirSync(space);
  giveToServer(space);
  await server.sql(`CREATE TABLESPACE one LOCATION '${space}'`);
  await server.sql(`CREATE TABLE there TABLESPACE one AS
    SELECT i, repeat('x', 200) AS t FROM generate_series(1, 5000) i`);
  await server.sql('CREATE DATABASE other');
  const archive = archiveDirectory();
  const receiver = keep(receive(archive, server.conninfo()));
  await receiver.waitForOutput(/starting log streaming/);
  await workload(server, { transactions: 5 });
  const { record } = await backupOf(server, archive, { compression: { method: 'gzip' } });
  await workload(server, { transactions: 6, switchEvery: 2 });
  const [row] = await server.sql<{ n: number }>('SELECT count(*)::int AS n FROM committed');
  await waitEqual(archive, server);
  await server.kill9();
  await receiver.stop();
  await server.destroy();
  handOver(archive);
  return { archive, id: record.id, rows: row!.n };
}

function copyOf(archive: string): string {
  const copy = join(scratchDir('copy', { forServer: true }), 'archive');
  cpSync(archive, copy, { recursive: true });
  handOver(copy);
  return copy;
}

function flipBit(path: string, at = Math.floor(statSync(path).size / 2)): void {
  const content = readFileSync(path);
  content[at] = content[at]! ^ 1;
  writeFileSync(path, content);
}

const segmentsOf = (archive: string): string[] =>
  readdirSync(archive)
    .filter((name) => /^[0-9A-F]{24}/.test(name))
    .sort();

test.each(OUTER_MAJORS)('PostgreSQL %i: a good archive is told from bad ones', async (major) => {
  const { archive, id, rows } = await archived(major);
  const scratch = scratchDir('scratch');
  execFileSync('chmod', ['711', scratch]);
  const nothingLeft = () => {
    expect(readdirSync(scratch)).toEqual([]);
    expect(serversBelow(scratch)).toEqual([]);
  };

  const textfile = join(scratchDir('metrics'), 'rehearse.prom');
  const good = await rehearse(major, scratch, '--textfile', textfile, archive);
  expect(good.code, good.stdout + good.stderr).toBe(0);
  expect(good.stdout).toMatch(/^GOOD: it can be restored to /m);
  for (const line of good.stdout.split('\n')) expect([...line].length).toBeLessThanOrEqual(80);
  const metrics = readFileSync(textfile, 'utf8');
  expect(metrics).toMatch(/^walkeep_rehearse_success\{archive="[^"]+"\} 1$/m);
  expect(metrics).toMatch(/^walkeep_rehearse_duration_seconds\{.*,step="recovery"\} \d/m);
  expect(metrics).toMatch(/^walkeep_rehearse_last_commit_timestamp_seconds\{.*\} \d{10}/m);
  nothingLeft();

  const queries = [
    `SELECT count(*) = ${rows} AND pg_is_in_recovery() FROM committed`,
    "SELECT setting = 'off' FROM pg_settings WHERE name = 'archive_mode'",
  ].flatMap((sql) => ['--sql', sql]);
  const asked = await rehearse(major, scratch, '--json', ...queries, archive);
  expect(asked.code, asked.stdout + asked.stderr).toBe(0);
  const report = JSON.parse(asked.stdout);
  expect(report).toMatchObject({ outcome: 'good', backup: { id }, reached: { promoted: false } });
  expect(report.steps.restore + report.steps.start + report.steps.recovery).toBeCloseTo(
    report.recovery,
  );
  const write = 'CREATE TABLE w AS SELECT NOT pg_is_in_recovery() AS ok; SELECT ok FROM w';
  const promoted = await rehearse(major, scratch, '--promote', '--sql', write, archive);
  expect(promoted.code, promoted.stdout + promoted.stderr).toBe(0);
  const immediate = await rehearse(
    ...([major, scratch, '--to', 'immediate', '--sql', 'SELECT count(*) FROM there'] as const),
    archive,
  );
  expect(immediate.code, immediate.stdout + immediate.stderr).toBe(0);
  const no = await rehearse(major, scratch, '--sql', 'SELECT false', archive);
  expect(no.code, no.stdout + no.stderr).toBe(1);
  nothingLeft();

  const spoilt: [string, (archive: string) => void, RegExp][] = [
    [
      'a flipped bit in a volume',
      (copy) => flipBit(join(copy, 'backups', id, 'base.tar.gz.0000')),
      /base\.tar\.gz\.0000/,
    ],
    [
      'a missing tablespace volume',
      (copy) => {
        const all = readdirSync(join(copy, 'backups', id));
        const name = all.find((one) => /^\d+\.tar/.test(one)) as string;
        rmSync(join(copy, 'backups', id, name));
      },
      /\d+\.tar\.gz\.0000/,
    ],
    [
      'a missing segment',
      (copy) => {
        const names = segmentsOf(copy);
        rmSync(join(copy, names.at(-3) as string));
      },
      /./,
    ],
    [
      'no WAL',
      (copy) => {
        for (const name of segmentsOf(copy)) rmSync(join(copy, name));
      },
      /WAL/,
    ],
    [
      'a flipped bit in the WAL',
      (copy) => {
        const names = segmentsOf(copy);
        // In its first record: in the middle may be what a switch left empty.
        flipBit(join(copy, names.at(-3) as string), 60);
      },
      /./,
    ],
  ];
  for (const [what, spoil, told] of spoilt) {
    const copy = copyOf(archive);
    spoil(copy);
    const bad = await rehearse(major, scratch, copy);
    expect(bad.code, `${what}: ${bad.stdout}${bad.stderr}`).toBe(1);
    expect(bad.stdout.match(/^BAD: .*/m)?.[0], what).toMatch(told);
    nothingLeft();
  }
});

/** Killed where its server is, and at random points; every second time with the guard of it. */
test('what a killed rehearsal leaves is gone after the next one', async () => {
  const major = MAJORS.includes(17) ? 17 : MAJORS[0]!;
  const { archive } = await archived(major);
  const scratch = scratchDir('scratch');
  execFileSync('chmod', ['711', scratch]);
  const args = ['--sql', 'SELECT true', archive];
  const began = performance.now();
  expect((await rehearse(major, scratch, ...args)).code).toBe(0);
  const whole = performance.now() - began;
  const killed = async (
    withGuard: boolean,
    sql: string,
    instant: (told: () => string) => Promise<unknown>,
  ) => {
    const command = [program(), ...argsFor(major, scratch), '--sql', sql, archive];
    // What one left whose guard was killed as well may outlive this one, if that is killed early.
    const before = serversBelow(scratch);
    const child = spawn(process.execPath, command, {
      ...{ env: environment, stdio: ['ignore', 'ignore', 'pipe'] },
    });
    killAtEnd(child);
    const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    let told = '';
    child.stderr!.setEncoding('utf8').on('data', (more) => {
      told += more;
    });
    await instant(() => told);
    const servers = serversBelow(scratch);
    const shells = withGuard ? childrenOf(child.pid!) : [];
    // The one that runs the server, and the one that waits at the pipe.
    const guards = [...shells, ...shells.flatMap(childrenOf)].filter((p) => !servers.includes(p));
    for (const pid of [child.pid!, ...guards]) signal(pid, 'SIGKILL');
    await ended;
    if (guards.length > 0) return servers;
    // Without any help.
    await waitFor(() => serversBelow(scratch).every((pid) => before.includes(pid)), {
      what: 'the server to be stopped',
    });
    return servers;
  };
  for (const withGuard of [false, true]) {
    const servers = await killed(withGuard, 'SELECT pg_sleep(600)', (told) =>
      waitFor(() => /recovery took/.test(told()), { what: 'the queries' }),
    );
    expect(servers.length).toBeGreaterThan(0);
  }
  // Before it comes to what the last one left.
  await killed(false, 'SELECT true', async () => {});
  for (let round = 2; round < KILLS; round++) {
    // The later half, in which there is a server, comes more often.
    const share = round % 3 === 0 ? Math.random() : 0.3 + 0.7 * Math.random();
    await killed(round % 2 === 1, 'SELECT true', () => delay(whole * share));
  }
  const last = await rehearse(major, scratch, ...args);
  expect(last.code, last.stdout + last.stderr).toBe(0);
  expect(readdirSync(scratch)).toEqual([]);
  expect(serversBelow(scratch)).toEqual([]);
});

/** Renames its last segments away as soon as a rehearsal of it is planned, or back again. */
async function promotedWhileItChanges(major: Major, archive: string, how: 'grows' | 'shrinks') {
  const copy = copyOf(archive);
  // It knows of segments that are not there.
  rmSync(join(copy, '.walkeep-ledger'), { force: true });
  const aside = join(dirname(copy), 'aside');
  mkdirSync(aside);
  const last = segmentsOf(copy).slice(-2);
  const move = (from: string, to: string) => {
    for (const name of last) renameSync(join(from, name), join(to, name));
  };
  if (how === 'grows') move(copy, aside);
  // Its restore_command must be one that the servers' user can run.
  const library = join(dirname(program()), '../dist/index.js');
  const { rehearse }: typeof import('../../src/index.js') = await import(library);
  const scratch = scratchDir('scratch');
  execFileSync('chmod', ['711', scratch]);
  return rehearse({
    ...{ places: [copy], scratch, pgBin: binDir(major), promote: true, sql: ['SELECT true'] },
    ...(serverUser.uid === undefined ? {} : { runAs: `${serverUser.uid}` }),
    onProgress: ({ kind }) => {
      if (kind !== 'plan') return;
      if (how === 'grows') move(aside, copy);
      else move(copy, aside);
    },
  });
}

test('a promotion is rehearsed at the end that was planned, and nowhere else', async () => {
  const major = MAJORS.at(-1)!;
  const { archive } = await archived(major);
  const grown = await promotedWhileItChanges(major, archive, 'grows');
  expect(grown).toMatchObject({ outcome: 'good', reached: { promoted: true } });
  expect(grown.reached!.lsn).toBeLessThanOrEqual(grown.plan!.located.lsn);
  const shrunk = await promotedWhileItChanges(major, archive, 'shrinks');
  expect(shrunk).toMatchObject({ outcome: 'bad', reached: undefined });
  expect(shrunk.problem?.message).toMatch(/^the WAL ends at .*, before/);
});

test('a signal has everything stopped and removed', async () => {
  const major = MAJORS.at(-1)!;
  const { archive } = await archived(major);
  const scratch = scratchDir('scratch');
  execFileSync('chmod', ['711', scratch]);
  const args = ['--sql', 'SELECT pg_sleep(600)', archive];
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    const child = spawn(process.execPath, [program(), ...argsFor(major, scratch), ...args], {
      ...{ env: environment, stdio: ['ignore', 'ignore', 'pipe'] },
    });
    killAtEnd(child);
    const ended = new Promise<number | null>((resolve) => child.once('exit', resolve));
    let text = '';
    child.stderr!.setEncoding('utf8').on('data', (more) => {
      text += more;
    });
    await waitFor(() => /recovery took/.test(text), { what: 'the queries' });
    signal(child.pid!, name);
    expect(await ended, text).toBe(2);
    expect(readdirSync(scratch)).toEqual([]);
    expect(serversBelow(scratch)).toEqual([]);
  }
});

test('what cannot be told is said so', async () => {
  const major = MAJORS.at(-1)!;
  const { archive, id } = await archived(major);
  const scratch = scratchDir('scratch');
  execFileSync('chmod', ['711', scratch]);
  const runs: [string[], RegExp][] = [
    [['--timeout', '3', '--sql', 'SELECT pg_sleep(600)', archive], /not over after 3 seconds/],
    [['--set', 'shared_buffers=900TB', archive], /shared_buffers|shared memory/],
    [['--pg-bin', '/nowhere', archive], /no PostgreSQL/],
    [['--backup', 'none', archive], /no complete base backup "none"/],
    [[join(archive, 'backups', id)], /./],
    [[], /no archive/],
  ];
  for (const [args, told] of runs) {
    const { code, stdout, stderr } = await rehearse(major, scratch, ...args);
    expect(code, stdout + stderr).toBe(2);
    expect(stdout + stderr).toMatch(told);
    expect(readdirSync(scratch)).toEqual([]);
    expect(serversBelow(scratch)).toEqual([]);
  }
});

test('damage that a backup has faithfully kept is found', async () => {
  const major = MAJORS.includes(17) ? 17 : MAJORS[0]!;
  const server = keep(await PostgresServer.create({ major }));
  await server.sql('CREATE TABLE broken AS SELECT generate_series(1, 10000) AS i');
  const [row] = await server.sql<{ path: string }>("SELECT pg_relation_filepath('broken') AS path");
  await server.stop();
  const file = join(server.dataDir, row!.path);
  const content = readFileSync(file);
  // pd_lower and pd_upper of its second page.
  content.fill(0xff, 8192 + 12, 8192 + 16);
  writeFileSync(file, content);
  await server.start();
  const archive = archiveDirectory();
  const receiver = keep(receive(archive, server.conninfo()));
  await receiver.waitForOutput(/starting log streaming/);
  await workload(server, { transactions: 2 });
  await backupOf(server, archive, { compression: { method: 'gzip' } });
  await waitEqual(archive, server);
  await server.kill9();
  await receiver.stop();
  handOver(archive);
  const scratch = scratchDir('scratch');
  execFileSync('chmod', ['711', scratch]);
  const { code, stdout, stderr } = await rehearse(major, scratch, archive);
  expect(code, stdout + stderr).toBe(1);
  expect(stdout).toMatch(/^BAD: postgres, public\.broken: invalid page in block 1 /m);
  expect(readdirSync(scratch)).toEqual([]);
});
