import { chmodSync, readdirSync, renameSync, rmSync, statSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { disposer } from '../support/cleanup.js';
import { runCli, unfolded } from '../support/cli.js';
import { cutOff, pair } from '../support/failover.js';
import { MAJORS, PostgresServer } from '../support/postgres.js';
import { archiveDirectory, receive, waitEqual, writeWal } from '../support/receiving.js';
import { freePort } from '../support/server-config.js';
import { waitFor } from '../support/wait.js';

const keep = disposer();
const NEWEST = MAJORS.at(-1)!;

interface Checked {
  code: number | null;
  /** Statuses by check; of several results of one check the worst. */
  status: Record<string, string>;
  /** Messages of what is not ok. */
  bad: string[];
  summary: Record<string, unknown>;
  /** By check, what it says. */
  said: Record<string, string>;
}

/** Runs `walkeep check --json` to its end. */
async function check(directory: string, conninfo: string, ...args: string[]): Promise<Checked> {
  const cli = keep(runCli(['check', '--json', '-w', '-D', directory, '-d', conninfo, ...args]));
  const { code } = await cli.exit;
  expect(cli.stderr).toBe('');
  const lines = cli.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  const summary = lines.pop();
  const order = ['ok', 'unknown', 'warn', 'fail'];
  const status: Record<string, string> = {};
  for (const { check: name, status: found } of lines) {
    const before = status[name] ?? 'ok';
    status[name] = order.indexOf(found) > order.indexOf(before) ? found : before;
  }
  const bad = lines
    .filter((line) => line.status !== 'ok')
    .map((line) => `${line.status} ${line.check}: ${line.message}`);
  const said = Object.fromEntries(lines.map(({ check, message }) => [check, message]));
  for (const line of lines) if (line.status !== 'ok') expect(line.hint ?? '').not.toBe('');
  return { code, status, said, bad, summary };
}

/** A server and a receiver with a slot that has caught up. */
async function receiving(major = NEWEST, settings: Record<string, string> = {}) {
  const server = keep(await PostgresServer.create({ major, settings }));
  const directory = archiveDirectory();
  await server.sql("SELECT pg_create_physical_replication_slot('s', true)");
  const start = async () => {
    const run = keep(receive(directory, server.conninfo(), ['-S', 's', '--synchronous']));
    await run.waitForOutput(/starting log streaming/);
    return run;
  };
  const run = await start();
  await writeWal(server, 1_500_000);
  await waitEqual(directory, server);
  return { server, directory, run, start };
}

test.each(MAJORS)('all is well with major %i', async (major) => {
  const { server, directory } = await receiving(major);
  const result = await check(directory, server.conninfo(), '-S', 's');
  expect(result.bad).toEqual([]);
  expect(result.code).toBe(0);
  expect(result.summary).toMatchObject({ status: 'ok', exitCode: 0 });
  expect(result.summary.behindBytes).toBeLessThan(100_000);
  expect(result.said.max_wal_senders).toMatch(/^1 of \d+ in use$/);
  expect(Object.keys(result.status)).toEqual([
    ...['connection', 'replication right', 'SQL', 'server version', 'wal_level'],
    ...['max_wal_senders', 'max_replication_slots', 'slot', 'slot active', 'slot WAL'],
    ...['slot retention', 'sync state', 'archive_mode', 'clock', 'cluster', 'timeline'],
    ...['recovery point', 'continuity', 'receiver', 'disk space', 'permissions'],
  ]);
});

test('as a table, for Nagios, and without a slot', async () => {
  const { server, directory } = await receiving();
  const args = ['check', '-w', '-D', directory, '-d', server.conninfo()];
  const table = keep(runCli([...args, '-S', 's']));
  expect((await table.exit).code).toBe(0);
  expect(table.stdout).toMatch(/^OK {6}connection {12}server at "127.0.0.1", port \d+\n/);
  expect(table.stdout.split('\n').filter((line) => line.length > 80)).toEqual([]);
  expect(table.stdout).toMatch(/\n\nOK: 21 ok\n$/);
  const nagios = keep(runCli([...args, '-S', 's', '--nagios']));
  expect((await nagios.exit).code).toBe(0);
  expect(nagios.stdout).toMatch(/^WALKEEP OK - 21 ok \| behind=\d+B age=[\d.]+s free=\d+B\n$/);
  const limits = ['--warning', '64MB', '--critical', '1GB,300s'];
  const limited = keep(runCli([...args, '-S', 's', '--nagios', ...limits]));
  expect((await limited.exit).code).toBe(0);
  expect(limited.stdout).toMatch(
    /\| behind=\d+B;67108864;1073741824 age=[\d.]+s;;300 free=\d+B\n$/,
  );
  const warned = keep(runCli([...args, '--nagios']));
  expect((await warned.exit).code).toBe(1);
  expect(warned.stdout).toMatch(/^WALKEEP WARNING - slot: none given: .* \| behind=/);
});

test('a receiver that is away, and the slot with it', async () => {
  const { server, directory, run } = await receiving();
  await run.stop('SIGKILL');
  await server.configure({
    max_slot_wal_keep_size: '6MB',
    wal_keep_size: '0',
    max_wal_size: '2MB',
  });
  await waitFor(async () => (await server.walSenderPids()).length === 0);
  await writeWal(server, 5_500_000);
  await server.sql('CHECKPOINT');
  const away = await check(directory, server.conninfo(), '-S', 's');
  expect(away.code).toBe(2);
  expect(away.status).toMatchObject({
    receiver: 'fail',
    'slot active': 'warn',
    'slot WAL': 'warn',
    'slot retention': 'warn',
    'recovery point': 'warn',
    continuity: 'ok',
  });
  expect(away.summary.behindBytes).toBeGreaterThan(5_000_000);
  const limits = ['-S', 's', '--warning', '1kB', '--critical', '1MB'];
  const limited = await check(directory, server.conninfo(), ...limits);
  expect(limited.status).toMatchObject({ 'recovery point': 'fail' });
  expect(limited.said['recovery point']).toMatch(/ MiB behind .*; it may be 1\.0 MiB$/);
  expect(away.summary.behindSeconds).toBeGreaterThan(0);
  for (let i = 0; i < 8; i++) await server.switchWal();
  await server.sql('CHECKPOINT');
  const lost = await check(directory, server.conninfo(), '-S', 's');
  expect(lost.status).toMatchObject({ 'slot WAL': 'fail' });
  expect(lost.bad).toContain(
    'fail slot WAL: invalidated (wal_removed): the server keeps nothing for it',
  );
  expect(lost.bad).toContain(
    'warn slot active: not in use: nothing is received, and the server keeps nothing for it',
  );
  expect(lost.said).not.toHaveProperty('slot retention');
  const none = await check(directory, server.conninfo(), '-S', 'other');
  expect(none.bad).toContain('fail slot: replication slot "other" does not exist');
});

test('a receiver that stands still', async () => {
  const { server, directory, run } = await receiving();
  run.child.kill('SIGSTOP');
  await writeWal(server, 200_000);
  const behind = async () => {
    const { summary } = await check(directory, server.conninfo(), '-S', 's');
    return summary.behindSeconds as number;
  };
  // Its last reply gets older with every look.
  await waitFor(async () => (await behind()) > 2, { what: 'the time to grow' });
  run.child.kill('SIGCONT');
  await waitEqual(directory, server);
  await waitFor(async () => (await behind()) < 2, { what: 'it to have caught up' });
});

test('an accepted gap, until what leads up to it is gone', async () => {
  const { server, directory, run } = await receiving();
  await run.stop();
  await server.configure({ wal_keep_size: '0' });
  await server.sql("SELECT pg_drop_replication_slot('s')");
  for (let i = 0; i < 5; i++) await server.switchWal();
  await server.sql('CHECKPOINT');
  await server.sql("SELECT pg_create_physical_replication_slot('s', true)");
  const args = ['-S', 's', '--synchronous', '--accept-gap'];
  const next = keep(receive(directory, server.conninfo(), args));
  await next.waitForOutput(/starting log streaming/);
  await writeWal(server, 1_500_000);
  const last = await server.currentSegment();
  await waitFor(() => readdirSync(directory).includes(`${last}.partial`));
  const { bad } = await check(directory, server.conninfo(), '-S', 's');
  expect(bad.join('\n')).toMatch(/warn continuity: accepted gap from /);
  const cleanup = keep(runCli(['cleanup', directory, last]));
  expect((await cleanup.exit).code).toBe(0);
  const after = await check(directory, server.conninfo(), '-S', 's');
  expect(after.bad.filter((line) => line.includes('continuity'))).toEqual([]);
  expect(after.status.continuity).toBe('ok');
});

test('a password that is missing or wrong', async () => {
  const hba = [
    'host all secret 127.0.0.1/32 scram-sha-256',
    'host replication secret 127.0.0.1/32 scram-sha-256',
  ];
  const server = keep(await PostgresServer.create({ major: NEWEST, hba }));
  await server.sql("CREATE ROLE secret LOGIN REPLICATION PASSWORD 'right'");
  const directory = archiveDirectory();
  const told = async (conninfo: string) => {
    const cli = keep(runCli(['check', '-w', '-D', directory, '-d', conninfo]));
    expect((await cli.exit).code).toBe(2);
    return unfolded(cli.stdout);
  };
  const missing = await told(server.conninfo({ user: 'secret' }));
  expect(missing).toMatch(/FAIL login .*no password supplied Put it into the password file/);
  expect(missing).not.toMatch(/Give the role|right to connect/);
  const wrong = await told(`${server.conninfo({ user: 'secret' })} password=wrong`);
  expect(wrong).toMatch(/FAIL login .*password authentication failed .* has the right one/);
  const nobody = await told(server.conninfo({ user: 'nobody' }));
  expect(nobody).toMatch(/FAIL login .*See that the role exists/);
});

test('a slot that begins behind the end of the archive', async () => {
  const { server, directory, run } = await receiving();
  await run.stop();
  for (let i = 0; i < 3; i++) await server.switchWal();
  // A new slot keeps WAL from the last checkpoint on.
  await server.sql('CHECKPOINT');
  await server.sql("SELECT pg_create_physical_replication_slot('late', true)");
  await server.sql("SELECT pg_create_physical_replication_slot('unused')");
  const late = await check(directory, server.conninfo(), '-S', 'late');
  expect(late.bad.join('\n')).toMatch(
    /fail slot: replication slot "late" begins at .*, the archive ends at /,
  );
  const unused = await check(directory, server.conninfo(), '-S', 'unused');
  expect(unused.bad).toContain('warn slot: replication slot "unused" keeps no WAL yet');
});

test('holes, files that are gone, and a directory of another cluster', async () => {
  const { server, directory, run } = await receiving();
  await writeWal(server, 2_500_000);
  await waitEqual(directory, server);
  await run.stop();
  const names = readdirSync(directory)
    .filter((name) => /^[0-9A-F]{24}$/.test(name))
    .sort();
  const hole = names[1]!;
  renameSync(join(directory, hole), join(directory, `.${hole}`));
  const holed = await check(directory, server.conninfo(), '-S', 's');
  expect(holed.code).toBe(2);
  expect(holed.bad.join('\n')).toMatch(/fail continuity: missing: \S+ to \S+ on timeline 1/);
  renameSync(join(directory, `.${hole}`), join(directory, hole));

  const other = keep(await PostgresServer.create({ major: NEWEST, fresh: true }));
  const foreign = await check(directory, other.conninfo());
  expect(foreign.status.cluster).toBe('fail');
  expect(foreign.summary.behindBytes).toBeNull();

  for (const name of readdirSync(directory)) {
    if (/^[0-9A-F]{24}/.test(name)) unlinkSync(join(directory, name));
  }
  const emptied = await check(directory, server.conninfo(), '-S', 's');
  expect(emptied.bad.join('\n')).toMatch(
    /warn continuity: WAL was archived up to .* there are no files/,
  );
  rmSync(join(directory, '.walkeep-ledger'));
  const empty = await check(directory, server.conninfo(), '-S', 's');
  expect(empty.status).toMatchObject({ cluster: 'warn', 'recovery point': 'fail' });
  const missing = await check(join(directory, 'no'), server.conninfo(), '-S', 's');
  expect(missing.status.directory).toBe('fail');
});

test('after a promotion: the old primary, the new one, and one that is behind', async () => {
  const [primary, standby] = await pair(NEWEST);
  keep(primary);
  keep(standby);
  const directory = archiveDirectory();
  const old = keep(receive(directory, primary.conninfo(), ['--synchronous']));
  await old.waitForOutput(/starting log streaming/);
  await writeWal(primary, 500_000);
  await waitEqual(directory, primary);
  await old.stop();
  await cutOff(primary, standby);
  await standby.promote();
  await writeWal(standby, 300_000);
  const behind = await check(directory, standby.conninfo());
  expect(behind.status.timeline).toBe('warn');
  expect(behind.bad.join('\n')).toMatch(/still on timeline 1, the server on 2 since/);
  const next = keep(receive(directory, standby.conninfo(), ['--synchronous']));
  await waitEqual(directory, standby, { timeline: 2, others: [primary] });
  expect((await check(directory, standby.conninfo())).status).toMatchObject({
    timeline: 'ok',
    'recovery point': 'ok',
    continuity: 'ok',
    receiver: 'ok',
  });
  await next.stop();
  const back = await check(directory, primary.conninfo());
  expect(back.bad).toContain('fail timeline: the archive has timeline 2, the server is on 1');
});

test('synchronous_standby_names, archive_mode and permissions', async () => {
  const { server, directory, run, start } = await receiving(NEWEST, {
    archive_mode: 'on',
    archive_command: '',
  });
  const of = async () => {
    const { status, bad } = await check(directory, server.conninfo(), '-S', 's');
    return { sync: status['sync state'], archive: status.archive_mode, bad: bad.join('\n') };
  };
  const files = readdirSync(directory).filter((name) => /^[0-9A-F]{24}/.test(name));
  const mode = statSync(directory).mode;
  expect(await of()).toMatchObject({ sync: 'ok', archive: 'fail' });
  await server.configure({
    synchronous_standby_names: 'ANY 1 (walkeep, standby)',
    archive_command: '/bin/false',
  });
  await server.switchWal();
  await waitFor(async () => {
    const [row] = await server.sql('SELECT failed_count::int AS n FROM pg_stat_archiver');
    return row?.n > 0;
  });
  chmodSync(directory, 0o755);
  chmodSync(join(directory, files[0]!), 0o644);
  const second = await of();
  expect(second).toMatchObject({ sync: 'ok', archive: 'warn' });
  expect(second.bad).toMatch(/archive_command = '\/bin\/false' failed for 0000/);
  expect(second.bad).toMatch(/warn permissions: everybody may read/);
  chmodSync(directory, 0o777);
  expect((await of()).bad).toMatch(/fail permissions: everybody may write/);
  chmodSync(directory, mode & 0o777);

  await server.configure({ synchronous_standby_names: 'walkeep', archive_command: '/bin/true' });
  const only = await of();
  expect(only.sync).toBe('warn');
  expect(only.bad).toMatch(/leaves no other standby/);
  await run.stop();
  const gone = await of();
  expect(gone.sync).toBe('fail');
  expect(gone.bad).toMatch(/no receiver of that name streams: commits may hang/);
  await start();
});

test('what a user that may only replicate cannot see is unknown', async () => {
  const server = keep(
    await PostgresServer.create({
      major: NEWEST,
      hba: ['host replication repl 127.0.0.1/32 trust', 'host postgres plain 127.0.0.1/32 trust'],
    }),
  );
  await server.sql('CREATE ROLE repl LOGIN REPLICATION');
  await server.sql('CREATE ROLE plain LOGIN');
  const directory = archiveDirectory();
  const conninfo = server.conninfo({ user: 'repl' });
  await server.sql("SELECT pg_create_physical_replication_slot('s', true)");
  const run = keep(receive(directory, conninfo, ['-S', 's', '--synchronous']));
  await run.waitForOutput(/starting log streaming/);
  await writeWal(server, 200_000);
  await waitEqual(directory, server);
  // What the server writes by itself may be on its way yet.
  const seen = await waitFor(
    async () => {
      const now = await check(directory, conninfo, '-S', 's');
      if (now.code !== 0) throw new Error(now.bad.join('; '));
      return now;
    },
    { what: 'nothing to complain of' },
  );
  const unknown = Object.entries(seen.status).filter(([, status]) => status !== 'ok');
  expect(Object.fromEntries(unknown)).toEqual({
    SQL: 'unknown',
    max_wal_senders: 'unknown',
    max_replication_slots: 'unknown',
    'slot active': 'unknown',
    'slot WAL': 'unknown',
    'slot retention': 'unknown',
    clock: 'unknown',
  });
  expect(seen.status.slot).toBe('ok');
  expect((await check(directory, conninfo, '-S', 'x')).status.slot).toBe('fail');

  const plain = await check(directory, server.conninfo({ user: 'plain' }), '-S', 's');
  expect(plain.code).toBe(2);
  expect(plain.status).toMatchObject({ connection: 'ok', 'replication right': 'fail', SQL: 'ok' });
});

test('no server there', async () => {
  const directory = archiveDirectory();
  const result = await check(directory, `host=127.0.0.1 port=${await freePort()} user=x`);
  expect(result.code).toBe(2);
  expect(result.status.connection).toBe('fail');
  expect(result.bad[0]).toMatch(/Connection refused/);
});
