import { chmodSync, lstatSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { CertificateAuthority } from '../support/certificates.js';
import { disposer } from '../support/cleanup.js';
import { type CliOptions, type CliRun, runCli } from '../support/cli.js';
import { type Major, PostgresServer } from '../support/postgres.js';
import { archiveDirectory, waitEqual, writeWal } from '../support/receiving.js';
import { packageRoot, scratchDir } from '../support/scratch.js';
import { waitFor } from '../support/wait.js';

const keep = disposer();
const MAJORS: readonly Major[] = [14, 18];
const CANARY = 'kAnari3nvogel';

/**
 * A server with a role that may log in and replicate, and nothing else. `sql: false`: pg_hba.conf
 * lets it into no database either.
 */
async function serverFor(major: Major, sql: boolean, settings: Record<string, string> = {}) {
  const server = keep(
    await PostgresServer.create({
      major,
      settings,
      auth: 'scram-sha-256',
      hba: [
        'host replication replicator 127.0.0.1/32 scram-sha-256',
        ...(sql ? ['host postgres replicator 127.0.0.1/32 scram-sha-256'] : []),
      ],
    }),
  );
  await server.sql(`CREATE ROLE replicator LOGIN REPLICATION PASSWORD '${CANARY}'`);
  const [role] = await server.sql(
    `SELECT rolsuper, rolcreaterole, rolcreatedb, rolbypassrls,
            (SELECT count(*)::int FROM pg_auth_members WHERE member = r.oid) AS memberships
       FROM pg_roles r WHERE rolname = 'replicator'`,
  );
  expect(role).toEqual({
    rolsuper: false,
    rolcreaterole: false,
    rolcreatedb: false,
    rolbypassrls: false,
    memberships: 0,
  });
  const conninfo = server.conninfo({ user: 'replicator' });
  const runs: CliRun[] = [];
  const start = (args: string[], options: CliOptions = {}): CliRun => {
    const env = { PGPASSWORD: CANARY, WALKEEP_DEBUG: '1', ...options.env };
    const run = keep(runCli([...args, '-w', '-d', conninfo], { ...options, env }));
    runs.push(run);
    return run;
  };
  /** Runs to the end; its output and exit code. */
  const finish = async (...args: string[]) => {
    const run = start(args);
    const { code } = await run.exit;
    return { code, stdout: run.stdout, stderr: run.stderr };
  };
  return { server, start, finish, conninfo, runs };
}

/** No output and no file below the directories has the password. */
function expectNoSecret(runs: readonly CliRun[], ...directories: string[]): void {
  for (const run of runs) expect(run.stdout + run.stderr).not.toContain(CANARY);
  for (const directory of directories) {
    for (const name of readdirSync(directory)) {
      const path = join(directory, name);
      if (!lstatSync(path).isFile()) continue;
      expect([name, readFileSync(path).includes(CANARY)]).toEqual([name, false]);
    }
  }
}

test.each(MAJORS)('LOGIN and REPLICATION are enough to receive from %i', async (major) => {
  const { server, start, finish, runs } = await serverFor(major, false);
  const done = { code: 0, stdout: '' };
  expect(await finish('receive', '--create-slot', '-S', 's')).toMatchObject(done);
  expect(await finish('receive', '--create-slot', '-S', 's', '--if-not-exists')).toMatchObject(
    done,
  );
  expect(await finish('slot', 'create', 't')).toEqual({ ...done, stderr: '' });
  const directories: string[] = [];
  for (const args of [
    [],
    ['-S', 's'],
    ['-S', 't', '--synchronous'],
    ['--ensure-slot', '-S', 'u'],
  ]) {
    const directory = archiveDirectory();
    directories.push(directory);
    const run = start(['receive', '-v', '-D', directory, ...args]);
    await run.waitForOutput(/starting log streaming/);
    await writeWal(server, 1_200_000);
    await waitEqual(directory, server);
    const argv = readFileSync(`/proc/${run.pid}/cmdline`, 'latin1');
    expect(argv).not.toContain(CANARY);
    expect(readFileSync(`/proc/${run.pid}/comm`, 'latin1')).not.toContain(CANARY);
    expect(await run.stop()).toEqual({ code: 0, signal: null });
    expect(run.stderr).not.toMatch(/error|warning/);
  }
  expect(await finish('slot', 'drop', 't')).toMatchObject(done);
  expect(await finish('receive', '--drop-slot', '-S', 's')).toMatchObject(done);
  const slots = await server.sql('SELECT slot_name FROM pg_replication_slots');
  expect(slots.map((s) => s.slot_name)).toEqual(['u']);
  expectNoSecret(runs, ...directories);
});

test.each(MAJORS)('check says of %i what is not known to such a role', async (major) => {
  const { server, start, finish, runs } = await serverFor(major, false);
  const directory = archiveDirectory();
  await finish('slot', 'create', 's');
  const run = start(['receive', '-v', '-D', directory, '-S', 's', '--synchronous']);
  await run.waitForOutput(/starting log streaming/);
  await writeWal(server, 1_200_000);
  await waitEqual(directory, server);
  const { code, stdout } = await finish('check', '--json', '-D', directory, '-S', 's');
  const results = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  const bad = results.filter((r) => r.status === 'fail' || r.status === 'warn');
  expect([code, bad]).toEqual([0, []]);
  const unknown = results.filter((r) => r.status === 'unknown').map((r) => r.check);
  expect(unknown).toEqual(
    expect.arrayContaining(['SQL', 'max_wal_senders', 'slot active', 'slot WAL', 'clock']),
  );
  expect(unknown.includes('slot')).toBe(major < 15);
  // What needs a database says so, and is not done by half.
  const list = await finish('slot', 'list');
  expect(list).toMatchObject({ code: 1, stdout: '' });
  expect(list.stderr).toMatch(/no pg_hba.conf entry/);
  expectNoSecret(runs, directory);
});

test.each(MAJORS)('without pg_monitor, in a database of %i', async (major) => {
  const { server, start, finish, runs } = await serverFor(major, true, {
    synchronous_standby_names: 'FIRST 1 (walkeep, other)',
    synchronous_commit: 'local',
  });
  const standby = keep(await server.createStandby({ applicationName: 'other' }));
  const directory = archiveDirectory();
  await finish('slot', 'create', 's');
  const run = start(['receive', '-v', '-D', directory, '-S', 's', '--synchronous']);
  await run.waitForOutput(/starting log streaming/);
  await writeWal(server, 1_200_000);
  await waitEqual(directory, server);
  const [other] = await server.sql(
    "SELECT count(*)::int AS n FROM pg_stat_replication WHERE application_name = 'other'",
  );
  expect(other?.n).toBe(1);
  // The other standby is another role's: it must not be taken for absent.
  expect(run.stderr).not.toMatch(/no other standby/);
  const list = await finish('slot', 'list', '--json');
  expect(JSON.parse(list.stdout)).toMatchObject({ name: 's', active: true });
  const { stdout } = await finish('check', '--json', '-D', directory, '-S', 's');
  const results = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  expect(results.filter((r) => r.status === 'fail')).toEqual([]);
  const sync = results.find((r) => r.check === 'sync state');
  // Even of its own walsender; pg_monitor would tell, and the hint says so.
  expect(sync).toMatchObject({
    status: 'unknown',
    message: '"walkeep" is listed in synchronous_standby_names; its state is not visible',
    hint: expect.stringContaining('pg_monitor'),
  });
  expect(await run.stop()).toEqual({ code: 0, signal: null });
  await standby.stop();
  expectNoSecret(runs, directory);
});

test.each([
  [0o600, 0o700, [], 0o000],
  [0o600, 0o700, [], 0o077],
  [0o640, 0o750, ['--allow-group-access'], 0o077],
  [0o640, 0o750, ['--allow-group-access'], 0o000],
] as const)(
  'files are %o where the server has %o',
  async (mode, directoryMode, initdbArgs, umask) => {
    const server = keep(
      await PostgresServer.create({
        major: 18,
        initdbArgs: [...initdbArgs],
        ...(initdbArgs.length > 0 ? {} : { fresh: false }),
      }),
    );
    const standby = keep(await server.createStandby({ start: false }));
    chmodSync(standby.dataDir, directoryMode);
    await standby.start();
    await standby.promote();
    for (const compress of ['none', 'gzip', 'lz4']) {
      const directory = archiveDirectory();
      const nodeArgs = ['--import', `data:text/javascript,process.umask(${umask})`];
      const run = keep(
        runCli(['receive', '-v', '-w', '-D', directory, '-d', standby.conninfo(), '-Z', compress], {
          nodeArgs,
        }),
      );
      await run.waitForOutput(/starting log streaming/);
      await writeWal(standby, 2_200_000);
      await waitFor(
        () =>
          readdirSync(directory).filter((n) => /^[0-9A-F]{24}(\.gz|\.lz4)?$/.test(n)).length >= 2,
        { what: 'two segments' },
      );
      const modes = () =>
        readdirSync(directory).flatMap((name) => {
          try {
            return [[name, (lstatSync(join(directory, name)).mode & 0o777).toString(8)] as const];
          } catch {
            return [];
          }
        });
      const check = () => {
        for (const [name, found] of modes()) {
          // Taken before the server is asked; what it says is for this user's processes.
          const wanted = name.startsWith('.walkeep-lock') ? 0o600 : mode;
          expect([name, found]).toEqual([name, wanted.toString(8)]);
        }
      };
      check();
      const names = modes().map(([name]) => name);
      expect(names).toEqual(
        expect.arrayContaining(['.walkeep-ledger', '.walkeep-lock', '00000002.history']),
      );
      expect(names.some((n) => n.endsWith('.sock'))).toBe(true);
      expect(await run.stop()).toEqual({ code: 0, signal: null });
      check();
    }
  },
);

test('a wrong password is not shown, from wherever it comes', async () => {
  const { server } = await serverFor(18, false);
  const files = scratchDir('files');
  const directory = archiveDirectory();
  const passfile = join(files, 'pgpass');
  writeFileSync(passfile, `*:*:*:*:wrong${CANARY}\n`, { mode: 0o600 });
  const service = join(files, 'service');
  const { host, port } = server;
  writeFileSync(
    service,
    `[s]\nhost=${host}\nport=${port}\nuser=replicator\npassword=wrong${CANARY}\n`,
  );
  const env: Record<string, string> = { WALKEEP_DEBUG: '1' };
  const plain = server.conninfo({ user: 'replicator' });
  const cases: [string, Record<string, string>][] = [
    [`${plain} password=wrong${CANARY}`, {}],
    [`postgresql://replicator:wrong${CANARY}@${host}:${port}/`, {}],
    [plain, { PGPASSWORD: `wrong${CANARY}` }],
    [`${plain} passfile=${passfile}`, {}],
    ['service=s', { PGSERVICEFILE: service }],
  ];
  const runs: CliRun[] = [];
  for (const [conninfo, more] of cases) {
    for (const args of [
      ['receive', '-n', '-v', '-D', directory],
      ['slot', 'drop', 's'],
    ]) {
      const run = keep(runCli([...args, '-w', '-d', conninfo], { env: { ...env, ...more } }));
      runs.push(run);
      expect((await run.exit).code).toBe(1);
      expect(run.stderr).toContain('password authentication failed');
    }
  }
  expectNoSecret(runs, directory);
});

test('the connection that SECURITY.md recommends', async () => {
  const server = keep(
    await PostgresServer.create({
      major: 18,
      tls: true,
      hba: ['hostssl replication replicator 127.0.0.1/32 scram-sha-256'],
    }),
  );
  await server.sql(`CREATE ROLE replicator LOGIN REPLICATION PASSWORD '${CANARY}'`);
  const text = readFileSync(join(packageRoot, 'SECURITY.md'), 'utf8');
  const documented = /-d '(host=db\.example [^']*)'/.exec(text)?.[1] as string;
  expect(documented).toMatch(/ sslmode=verify-full .* channel_binding=require$/);
  const connect = async (host: string, authority: string) => {
    const conninfo = documented
      .replace('db.example', host)
      .replace('5432', String(server.port))
      .replace('/etc/walkeep/root.crt', authority);
    const args = ['receive', '-n', '-w', '-v', '-D', archiveDirectory(), '-d', conninfo];
    const run = keep(runCli(args, { env: { PGPASSWORD: CANARY } }));
    return run;
  };
  const run = await connect('localhost', server.ca?.cert as string);
  await run.waitForOutput(/starting log streaming/);
  const [session] = await server.sql(
    'SELECT ssl, version FROM pg_stat_ssl JOIN pg_stat_replication USING (pid)',
  );
  expect(session).toEqual({ ssl: true, version: 'TLSv1.3' });
  expect(await run.stop()).toEqual({ code: 0, signal: null });

  const other = await CertificateAuthority.create(scratchDir('ca'));
  const refused = await connect('localhost', other.cert);
  expect((await refused.exit).code).toBe(1);
  expect(refused.stderr).toMatch(/certificate verify failed/);
  const missing = await connect('localhost', join(scratchDir('ca'), 'none'));
  expect((await missing.exit).code).toBe(1);
  expect(missing.stderr).toMatch(/root certificate file ".*" does not exist/);
});
