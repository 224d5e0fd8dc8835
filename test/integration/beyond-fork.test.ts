import { mkdirSync, readdirSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { formatLsn } from '../../src/lsn.js';
import { disposer } from '../support/cleanup.js';
import { type CliOptions, runCli } from '../support/cli.js';
import { caughtUp, cutOff, forkPoint, pair } from '../support/failover.js';
import { MAJORS, type PostgresServer } from '../support/postgres.js';
import { archiveDirectory, receive, waitEqual, writeWal } from '../support/receiving.js';

const keep = disposer();
const NEWEST = MAJORS.at(-1)!;

async function servers() {
  const [primary, standby] = (await pair(NEWEST)).map(keep) as Awaited<ReturnType<typeof pair>>;
  const conninfo = `host=127.0.0.1,127.0.0.1 port=${primary.port},${standby.port} user=postgres target_session_attrs=read-write`;
  return { primary, standby, conninfo, directory: archiveDirectory() };
}

async function finish(args: string[], options: CliOptions = {}) {
  const cli = keep(runCli(args, options));
  const { code } = await cli.exit;
  return { code, stdout: cli.stdout, stderr: cli.stderr };
}

/** Commits one transaction; gives its id. */
async function commitOne(server: PostgresServer): Promise<number> {
  const [row] = await server.sql(
    "SELECT pg_logical_emit_message(true, 'one', 'x'), pg_current_xact_id()::text::int AS xid",
  );
  return row!.xid;
}

test('what was acknowledged beyond the fork is kept, told and listed', async () => {
  const { primary, standby, conninfo, directory } = await servers();
  const run = keep(receive(directory, conninfo, ['--synchronous']));
  await run.waitForOutput(/starting log streaming/);
  const both = await commitOne(primary);
  await cutOff(primary, standby);
  const lost = [await commitOne(primary)];
  await writeWal(primary, 1_500_000);
  lost.push(await commitOne(primary));
  await waitEqual(directory, primary);
  await primary.kill9();
  expect(await standby.promote()).toBe(2);
  const fork = formatLsn(await forkPoint(standby));
  const [, from] = await run.waitForOutput(
    /\d+ bytes of WAL on timeline 1, from (\S+) to \S+, were received and are not on timeline 2/,
  );
  expect(from).toBe(fork);
  await run.waitForOutput(/hint: They are kept: "walkeep find --timeline 1 --beyond-fork /);
  await commitOne(standby);
  await writeWal(standby, 1_500_000);
  await waitEqual(directory, standby, { timeline: 2, others: [primary] });

  const find = (...args: string[]) => finish(['find', '--json', ...args, directory]);
  const listed = await find('--timeline', '1', '--beyond-fork');
  expect(listed.code).toBe(0);
  const found = listed.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  expect(new Set(found.map(({ kind }) => kind))).toEqual(new Set(['commit']));
  const xids = found.map(({ xid }) => xid);
  expect(xids).toEqual(expect.arrayContaining(lost));
  expect(xids).not.toContain(both);
  // Of what has the same numbers on the new timeline nothing is listed.
  expect(found.map(({ onTimeline }) => onTimeline)).toEqual(found.map(() => 1));
  expect((await find('--timeline', '2', '--beyond-fork')).code).toBe(1);
  expect((await find('--beyond-fork')).stderr).toMatch(/--beyond-fork needs --timeline/);

  const check = () => finish(['check', '--json', '-w', '-D', directory, '-d', conninfo]);
  const bad = await check();
  expect(bad.stdout).toMatch(
    /"check":"beyond fork","status":"warn","message":"[^"]* of timeline 1, from/,
  );
  expect(bad.stdout).toContain(`from ${fork} to `);
  // Said once, also to a receiver that is started later.
  await run.stop();
  const again = keep(receive(directory, conninfo, ['--synchronous']));
  await again.waitForOutput(/starting log streaming/);
  await writeWal(standby, 100_000);
  await waitEqual(directory, standby, { timeline: 2, others: [primary] });
  await again.stop();
  expect(run.stderr.match(/were received and are not on/g)).toHaveLength(1);
  expect(again.stderr).not.toMatch(/were received and are not on/);

  // Settled: the files of timeline 1 from the fork on are moved away.
  const elsewhere = archiveDirectory();
  mkdirSync(join(elsewhere, 'lost'));
  const segment = (await standby.sql('SELECT pg_walfile_name($1) AS name', [fork]))[0]?.name.slice(
    8,
  );
  for (const name of readdirSync(directory)) {
    if (/^00000001[0-9A-F]{16}/.test(name) && name.slice(8, 24) >= segment) {
      renameSync(join(directory, name), join(elsewhere, 'lost', name));
    }
  }
  expect((await check()).stdout).not.toMatch(/beyond fork/);
  expect((await finish(['verify', directory])).code).toBe(0);
});

test('a switchover in good order leaves nothing beyond the fork', async () => {
  const { primary, standby, conninfo, directory } = await servers();
  const run = keep(receive(directory, conninfo, ['--synchronous']));
  await run.waitForOutput(/starting log streaming/);
  await writeWal(primary, 300_000);
  await caughtUp(primary, standby);
  await primary.stop();
  await standby.promote();
  await run.waitForOutput(/switched to timeline 2|\(timeline 2\)/);
  await writeWal(standby, 300_000);
  await waitEqual(directory, standby, { timeline: 2, others: [primary] });
  const listed = await finish(['find', '--timeline', '1', '--beyond-fork', directory]);
  expect([listed.code, listed.stdout]).toEqual([1, '']);
  expect(run.stderr).not.toMatch(/were received and are not on/);
  expect(await run.stop()).toEqual({ code: 0, signal: null });
});

test('a standby is no server for --synchronous, and one for anything else', async () => {
  const { primary, standby, conninfo, directory } = await servers();
  const standbyOnly = standby.conninfo();
  const refused = await finish([
    'receive',
    '-w',
    '-D',
    directory,
    '-d',
    standbyOnly,
    '--synchronous',
  ]);
  expect(refused.code).toBe(1);
  expect(refused.stderr).toMatch(
    /error: the server is a standby: no commit waits for who receives/,
  );
  expect(refused.stderr).toMatch(/hint: With --synchronous connect to the primary/);
  expect(readdirSync(directory).filter((name) => !name.startsWith('.'))).toEqual([]);
  const run = keep(receive(directory, standbyOnly));
  await run.waitForOutput(/starting log streaming/);
  await writeWal(primary, 1_300_000);
  await caughtUp(primary, standby);
  await waitEqual(directory, standby, { others: [primary] });
  expect(await run.stop()).toEqual({ code: 0, signal: null });
  // As a failover finds it, not promoted yet: it is waited for.
  const hosts = conninfo.replace(/ target_session_attrs=\S+/, '');
  const sync = keep(receive(directory, hosts, ['--synchronous']));
  await sync.waitForOutput(/starting log streaming/);
  await writeWal(primary, 100_000);
  await caughtUp(primary, standby);
  await waitEqual(directory, primary, { others: [standby] });
  await primary.kill9();
  await sync.waitForOutput(/the server is a standby[\s\S]*to try again/);
  await standby.promote();
  await sync.waitForOutput(/streaming at \S+ \(timeline 2\)|switched to timeline 2/);
  expect(await sync.stop()).toEqual({ code: 0, signal: null });
});
