import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { verifyArchive } from '../../src/verify/verify.js';
import { randomNumbers } from '../support/archives.js';
import { disposer } from '../support/cleanup.js';
import { runCli } from '../support/cli.js';
import { caughtUp, cutOff, pair } from '../support/failover.js';
import { RandomKills } from '../support/kill-times.js';
import { MAJORS, PostgresServer } from '../support/postgres.js';
import {
  archiveDirectory,
  differences,
  receive,
  waitEqual,
  writeWal,
} from '../support/receiving.js';
import { scratchDir } from '../support/scratch.js';
import { walkeepForServer } from '../support/server-program.js';
import { waitFor } from '../support/wait.js';
import { workload } from '../support/workload.js';

const keep = disposer();
const NEWEST = MAJORS.at(-1)!;

const archiving = (directory: string, mode = 'on') => ({
  archive_mode: mode,
  archive_command: `${walkeepForServer()} push "${directory}" %p`,
});

const complete = (directory: string) =>
  readdirSync(directory).filter((name) => /^[0-9A-F]{24}$/.test(name));

async function push(directory: string, server: PostgresServer, name: string) {
  const path = join(server.dataDir, 'pg_wal', name);
  const cli = keep(runCli(['push', '-v', directory, path]));
  const { code } = await cli.exit;
  return { code, stderr: cli.stderr };
}

/** Waits until the archiver has no more to do than what is named. */
async function archived(server: PostgresServer, name: string): Promise<void> {
  await waitFor(
    async () => {
      const [row] = await server.sql('SELECT last_archived_wal AS last FROM pg_stat_archiver');
      return row?.last >= name;
    },
    { what: `${name} to be archived` },
  );
}

test.each(MAJORS.filter((major) => [15, NEWEST].includes(major)))(
  'archive_command of a primary and of the standby that succeeds it, major %i',
  async (major) => {
    const directory = scratchDir('archive', { forServer: true });
    const settings = archiving(directory);
    const primary = keep(await PostgresServer.create({ major, settings }));
    const standby = keep(await primary.createStandby());
    await workload(primary, { transactions: 12, switchEvery: 5 });
    await archived(primary, await primary.switchWal());
    await writeWal(primary, 200_000);
    await cutOff(primary, standby);
    expect(await standby.promote()).toBe(2);
    await workload(standby, { transactions: 6, switchEvery: 3 });
    await archived(standby, await standby.switchWal());
    const names = readdirSync(directory);
    expect(names).toContain('00000002.history');
    expect(names.filter((name) => name.endsWith('.partial'))).toHaveLength(1);
    expect(differences(directory, [primary, standby])).toEqual([]);
    const { findings } = await verifyArchive(directory, { jobs: 1 });
    expect(findings.filter((f) => f.severity === 'error')).toEqual([]);
    for (const server of [primary, standby]) {
      const [stats] = await server.sql('SELECT failed_count::int AS n FROM pg_stat_archiver');
      expect(stats?.n).toBe(0);
    }
    // The old primary goes on with the segment that the new one archived as partial.
    await writeWal(primary, 1_200_000);
    await archived(primary, await primary.switchWal());
    expect(differences(directory, [primary, standby])).toEqual([]);
  },
);

test('beside a receiver, and after it', async () => {
  const server = keep(await PostgresServer.create({ major: NEWEST, archive: true }));
  const directory = archiveDirectory();
  const receiver = keep(receive(directory, server.conninfo(), ['--synchronous']));
  await receiver.waitForOutput(/starting log streaming/);
  await writeWal(server, 2_500_000);
  await waitEqual(directory, server);
  const [name] = complete(directory);
  expect(await push(directory, server, name!)).toEqual({
    code: 0,
    stderr: `walkeep: ${name}: the archive has it already\n`,
  });
  // What the receiver is writing to is complete on the server before it is here: it is stopped.
  receiver.child.kill('SIGSTOP');
  await writeWal(server, 500_000);
  const ahead = await server.switchWal();
  expect(await push(directory, server, ahead)).toMatchObject({ code: 0 });
  receiver.child.kill('SIGCONT');
  await writeWal(server, 1_500_000);
  const there = () => complete(directory);
  await waitFor(() => there().length > there().indexOf(ahead) + 1, { what: 'the next segment' });
  await receiver.stop();
  const kept = readdirSync(directory).filter((file) => file.endsWith('.replaced'));
  for (const file of kept) rmSync(join(directory, file));
  expect(differences(directory, [server])).toEqual([]);
  expect(receiver.stderr).not.toMatch(/error/);

  const other = keep(await PostgresServer.create({ major: NEWEST, fresh: true }));
  const foreign = await push(directory, other, await other.switchWal());
  expect(foreign.code).toBe(1);
  expect(foreign.stderr).toMatch(/is of another cluster than the archive/);
});

test('what a promoted standby archives, beside the receiver that follows it', async () => {
  const directory = archiveDirectory();
  const [primary, standby] = await pair(NEWEST);
  keep(primary);
  keep(standby);
  const first = keep(receive(directory, primary.conninfo(), ['--synchronous']));
  await first.waitForOutput(/starting log streaming/);
  await writeWal(primary, 1_300_000);
  await cutOff(primary, standby);
  // What only the old primary has: its partial is longer than the one that is pushed.
  await writeWal(primary, 50_000);
  await waitEqual(directory, primary);
  await first.stop();
  expect(await standby.promote()).toBe(2);
  const second = keep(receive(directory, standby.conninfo(), ['--synchronous']));
  await second.waitForOutput(/starting log streaming/);
  const told: string[] = [];
  for (let i = 0; i < 3; i++) {
    await writeWal(standby, 500_000);
    await standby.waitArchived(await standby.switchWal());
    for (const name of readdirSync(standby.archiveDir).sort()) {
      const cli = keep(runCli(['push', '-v', directory, join(standby.archiveDir, name)]));
      expect(await cli.exit).toEqual({ code: 0, signal: null });
      told.push(cli.stderr);
    }
  }
  await waitEqual(directory, standby, { timeline: 2, others: [primary] });
  await second.stop();
  expect(second.stderr).not.toMatch(/error/);
  expect(told.join('')).not.toMatch(/warning/);
  expect(told.join('')).toMatch(/\.partial: the archive has it already/);
  const { findings } = await verifyArchive(directory, { jobs: 1 });
  expect(findings.filter((f) => f.severity === 'error')).toEqual([]);
});

test('kill -9 at random instants leaves no wrong file under a final name', async () => {
  const server = keep(await PostgresServer.create({ major: NEWEST }));
  const names: string[] = [];
  for (let i = 0; i < 12; i++) {
    await writeWal(server, 300_000);
    names.push(await server.switchWal());
  }
  const directory = archiveDirectory();
  const kills = new RandomKills(randomNumbers(7));
  for (let i = 0; i < 3 * names.length || kills.killed < 6; i++) {
    const name = names[i % names.length] as string;
    const path = join(server.dataDir, 'pg_wal', name);
    const runs = [0, 1].map(() => keep(runCli(['push', directory, path])));
    // Two at once, each killed at an instant of its own.
    await Promise.all(runs.map((run) => kills.kill(run)));
    for (const stored of complete(directory)) {
      const original = readFileSync(join(server.dataDir, 'pg_wal', stored));
      expect(readFileSync(join(directory, stored)).equals(original)).toBe(true);
    }
  }
  for (const name of names) expect(await push(directory, server, name)).toMatchObject({ code: 0 });
  expect(complete(directory)).toEqual(names.sort());
  expect(readdirSync(directory).filter((name) => !names.includes(name))).toEqual(['.walkeep-push']);
});

test.each([
  [[], 'no directory specified'],
  [['/tmp'], 'no file specified'],
  [['-D', '/tmp'], 'no file specified'],
  [['/tmp', 'a', 'b'], 'too many command-line arguments (first is "b")'],
])('misuse %j', async (args, message) => {
  const cli = keep(runCli(['push', ...args]));
  expect((await cli.exit).code).toBe(1);
  expect(cli.stderr).toBe(
    `walkeep: error: ${message}\nwalkeep: hint: Try "walkeep push --help" for more information.\n`,
  );
});

/** Waits until a server has archived a file, and had no failure on the way. */
async function archivedWithout(server: PostgresServer, pattern: RegExp, directory: string) {
  await waitFor(() => readdirSync(directory).some((name) => pattern.test(name)), {
    what: `${pattern} in the archive`,
    timeoutMs: 40_000,
  });
  const [row] = await server.sql('SELECT failed_count::int AS failed FROM pg_stat_archiver');
  expect(row?.failed).toBe(0);
}

test('a promotion in the first page of a segment does not stop the new primary archiving', async () => {
  const directory = scratchDir('archive', { forServer: true });
  const settings = archiving(directory);
  const primary = keep(await PostgresServer.create({ major: NEWEST, settings }));
  const standby = keep(await primary.createStandby());
  await primary.switchWal();
  await primary.sql("SELECT pg_logical_emit_message(true, 'a', 'small')");
  await cutOff(primary, standby);
  await standby.promote();
  await standby.sql("SELECT pg_logical_emit_message(true, 'a', 'small')");
  await standby.switchWal();
  await archivedWithout(standby, /^00000002[0-9A-F]{16}$/, directory);
  expect(readdirSync(directory).filter((name) => name.endsWith('.partial'))).toHaveLength(1);
});

test('a cascaded standby that archives always takes the cut end of a timeline', async () => {
  const directory = scratchDir('archive', { forServer: true });
  const primary = keep(await PostgresServer.create({ major: NEWEST }));
  const next = keep(await primary.createStandby());
  const last = keep(await next.createStandby({ settings: archiving(directory, 'always') }));
  await primary.switchWal();
  await primary.sql("SELECT pg_logical_emit_message(true, 'a', repeat('y', 20000))");
  await caughtUp(primary, next);
  await caughtUp(next, last);
  await cutOff(primary, next);
  await next.promote();
  for (let i = 0; i < 2; i++) {
    await next.sql("SELECT pg_logical_emit_message(true, 'a', repeat('y', 20000))");
    await next.switchWal();
  }
  await archivedWithout(last, /^00000002[0-9A-F]{16}$/, directory);
  expect(readdirSync(directory).filter((name) => /^00000001.*\.partial$/.test(name))).toHaveLength(
    1,
  );
});
