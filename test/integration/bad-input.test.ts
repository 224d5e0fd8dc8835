import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmdirSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { disposer } from '../support/cleanup.js';
import { MAJORS, PASSWORD, PostgresServer, type ServerOptions } from '../support/postgres.js';
import { archiveDirectory, PROGRAMS, receive, waitEqual } from '../support/receiving.js';
import { expectRefusal, type Refusal } from '../support/refusal.js';
import { packageRoot, scratchDir, serverUser } from '../support/scratch.js';
import { freePort } from '../support/server-config.js';

const keep = disposer();
const major = MAJORS.at(-1)!;

describe.each(PROGRAMS)('%s refuses a command line', (program) => {
  const nowhere = ['-h', '127.0.0.1', '-p', '1'];
  test.each<[string, Refusal]>([
    ['without directory', { args: nowhere, message: /^no target directory specified$/ }],
    ['that it does not know', { args: ['--frobnicate'], message: /unrecognized option/ }],
    ['with a malformed LSN', { args: ['-E', '0/XYZ'], message: /end position "0\/XYZ"/ }],
    [
      'with a wrong port',
      { args: ['-p', 'http'], message: /invalid integer value "http" for .*port/ },
    ],
    [
      'with an unknown keyword',
      { args: ['-d', 'hots=a'], message: /invalid connection option "hots"/ },
    ],
    ['with a broken conninfo', { args: ['-d', "host='a"], message: /unterminated quoted string/ }],
    ['with a broken URI', { args: ['-d', 'postgresql://[::1/'], message: /IPv6|\]/ }],
  ])('%s', async (name, refusal) => {
    const directory = name === 'without directory' ? {} : { directory: archiveDirectory() };
    await expectRefusal({ ...directory, ...refusal }, { program });
  });
});

describe('a directory', () => {
  const args = ['-n', '-h', '127.0.0.1', '-p', '1'];

  test('that does not exist, or is none', async () => {
    const missing = join(scratchDir(), 'missing');
    await expectRefusal({
      args: [...args, '-D', missing],
      message: /^could not open directory ".*missing": No such file or directory$/,
    });
    expect(existsSync(missing)).toBe(false);
    writeFileSync(missing, '');
    await expectRefusal({
      args: [...args, '-D', missing],
      message: /^could not open directory ".*missing": Not a directory$/,
    });
  });

  test('that may not be read, or not be written to', async (context) => {
    const bin = join(packageRoot, 'bin', 'walkeep');
    const readable = spawnSync(process.execPath, [bin, '--version'], serverUser);
    if (readable.status !== 0) context.skip('root runs this, and others cannot read the package');
    const directory = scratchDir('wal', { forServer: true });
    for (const [mode, message] of [
      [0o000, /^could not open directory ".*": Permission denied$/],
      [0o500, /".*": Permission denied$/],
    ] as const) {
      chmodSync(directory, mode);
      await expectRefusal({ args: [...args, '-D', directory], message }, serverUser);
    }
    chmodSync(directory, 0o700);
    rmdirSync(directory);
  });
});

describe.each(PROGRAMS)('%s ends when there is', (program) => {
  test('no server', async () => {
    const port = await freePort();
    await expectRefusal(
      {
        directory: archiveDirectory(),
        args: ['-n', '-d', `host=127.0.0.1 port=${port} user=postgres`],
        message: new RegExp(
          `^connection to server at "127.0.0.1", port ${port} failed: Connection refused$`,
        ),
      },
      { program },
    );
    await expectRefusal(
      {
        directory: archiveDirectory(),
        args: ['-n', '-h', scratchDir('nosocket')],
        message: /^connection to server on socket ".*" failed: No such file or directory$/,
      },
      { program },
    );
  });
});

describe.skipIf(MAJORS.length === 0)('a server', () => {
  const servers = new Map<string, PostgresServer>();
  const start = async (name: string, options: Omit<ServerOptions, 'major'>) => {
    servers.set(name, await PostgresServer.create({ major, ...options }));
    return servers.get(name)!;
  };
  beforeAll(async () => {
    const main = await start('main', {
      auth: 'scram-sha-256',
      settings: { wal_level: 'logical', max_wal_senders: '1' },
    });
    await main.sql(`CREATE USER repl REPLICATION PASSWORD '${PASSWORD}'`);
    await main.sql(`CREATE USER plain PASSWORD '${PASSWORD}'`);
    await main.sql("SELECT pg_create_logical_replication_slot('logical', 'pgoutput')");
    await start('minimal', { settings: { wal_level: 'minimal', max_wal_senders: '0' } });
    await start('no hba', { hba: ['host all all 127.0.0.1/32 trust'] });
  });
  afterAll(async () => {
    for (const server of servers.values()) await server.destroy();
  });

  const conninfo = (name: string, keywords: Record<string, string | number>) =>
    servers.get(name)!.conninfo(keywords);
  const repl = { user: 'repl', password: PASSWORD };

  type Case = {
    server?: string;
    login?: Record<string, string>;
    args?: string[];
    message: RegExp;
    advice?: RegExp;
  };
  const CASES: [string, Case][] = [
    [
      'that wants another password',
      {
        login: { user: 'repl', password: 'wrong' },
        message: /FATAL: +password authentication failed for user "repl"$/,
      },
    ],
    [
      'that wants a password',
      { login: { user: 'repl' }, args: ['-w'], message: /fe_sendauth: no password supplied$/ },
    ],
    [
      'that gives the user no replication right',
      {
        login: { user: 'plain', password: PASSWORD },
        message: /FATAL: +(permission denied to start WAL sender|must be superuser or replication)/,
      },
    ],
    [
      'that lets nobody in for replication',
      {
        server: 'no hba',
        login: { user: 'postgres' },
        message: /FATAL: +no pg_hba.conf entry for replication connection from host/,
      },
    ],
    [
      'without the slot',
      {
        login: repl,
        args: ['-S', 'missing'],
        message: /^(.*ERROR: +)?replication slot "missing" does not exist$/,
      },
    ],
    [
      'where the slot is a logical one',
      {
        login: repl,
        args: ['-S', 'logical'],
        message: /cannot use (READ_REPLICATION_SLOT with )?a logical replication slot/,
      },
    ],
    [
      'with wal_level = minimal',
      {
        server: 'minimal',
        login: { user: 'postgres' },
        message: /FATAL: +number of requested standby connections exceeds "?max_wal_senders"?/,
        advice: /hint: Raise max_wal_senders on the server \(with wal_level replica or logical\)/,
      },
    ],
  ];

  describe.each(PROGRAMS)('%s', (program) => {
    test.each(CASES)(
      '%s',
      async (_name, { server = 'main', login = {}, args = [], ...expected }) => {
        const directory = archiveDirectory();
        const options = ['-d', conninfo(server, login), ...args];
        await expectRefusal({ directory, args: options, ...expected }, { program });
      },
    );

    test('with all walsenders taken', async () => {
      const first = keep(receive(archiveDirectory(), conninfo('main', repl)));
      await first.waitForOutput(/starting log streaming/);
      await expectRefusal(
        {
          directory: archiveDirectory(),
          args: ['-d', conninfo('main', repl)],
          message: /FATAL: +number of requested standby connections exceeds "?max_wal_senders"?/,
          advice: /hint: Raise max_wal_senders on the server/,
        },
        { program },
      );
    });
  });

  test('whose slot is missing leaves no trace on any version', async () => {
    for (const other of MAJORS) {
      await using server = await PostgresServer.create({ major: other });
      const directory = archiveDirectory();
      const args = ['-d', server.conninfo(), '-S', 'missing'];
      await expectRefusal({
        directory,
        args,
        message: /replication slot "missing" does not exist$/,
        advice: /hint: .*--create-slot, or "walkeep slot create"; under walkeep serve: ensure_slot/,
      });
    }
  });
});

describe.skipIf(MAJORS.length === 0)('what lies in the directory', () => {
  test('under a name of WAL and is none is passed over and kept', async () => {
    const server = keep(await PostgresServer.create({ major, archive: true }));
    const directory = archiveDirectory();
    const outside = scratchDir('outside');
    const at = (name: string) => join(directory, name);
    writeFileSync(join(outside, 'file'), 'precious');
    writeFileSync(at('0000000100000000000000F0'), 'short');
    symlinkSync(join(outside, 'file'), at('0000000100000000000000F1'));
    mkdirSync(at('0000000100000000000000F2'));
    mkdirSync(at('0000000100000000000000F3.partial'));
    symlinkSync(join(outside, 'none'), at('0000000100000000000000F4.partial'));
    const run = keep(receive(directory, server.conninfo()));
    await run.waitForOutput(/starting log streaming/);
    for (const [name, what] of [
      ['0000000100000000000000F0', 'has incorrect size 5, skipping'],
      // What it leads to counts, as with pg_receivewal.
      ['0000000100000000000000F1', 'has incorrect size 8, skipping'],
      ['0000000100000000000000F2', 'is not a regular file, skipping'],
      ['0000000100000000000000F3.partial', 'is not a regular file, skipping'],
    ]) {
      expect(run.stderr).toMatch(new RegExp(`warning: .*"${name}" ${what}`));
    }
    await server.switchWal();
    expect(await run.stop()).toEqual({ code: 0, signal: null });
    expect(readFileSync(at('0000000100000000000000F0'), 'utf8')).toBe('short');
    expect(readFileSync(join(outside, 'file'), 'utf8')).toBe('precious');
    expect(existsSync(join(outside, 'none'))).toBe(false);
  });

  test.each([
    ['a directory', (path: string) => mkdirSync(path)],
    ['a symlink', (path: string) => symlinkSync('/nonexistent/elsewhere', path)],
  ])('%s where the next partial file has to be is refused', async (_name, make) => {
    const server = keep(await PostgresServer.create({ major }));
    const directory = archiveDirectory();
    const segment = await server.currentSegment();
    make(join(directory, `${segment}.partial`));
    const run = keep(receive(directory, server.conninfo(), ['-n']));
    await run.waitForOutput(/starting log streaming/);
    await server.switchWal();
    expect(await run.exit).toEqual({ code: 1, signal: null });
    expect(run.stderr).toMatch(
      /error: could not open write-ahead log file ".*\.partial": (Is a directory|Too many levels of symbolic links)$/m,
    );
    expect(run.stderr).not.toMatch(/^\s+at /m);
  });

  test('a directory with the name of a finished segment is moved aside, not into', async () => {
    const server = keep(await PostgresServer.create({ major, archive: true }));
    const directory = archiveDirectory();
    const segment = await server.currentSegment();
    mkdirSync(join(directory, segment));
    const run = keep(receive(directory, server.conninfo()));
    await run.waitForOutput(/starting log streaming/);
    await server.waitArchived(await server.switchWal());
    await run.waitForOutput(/finished segment/);
    expect(await run.stop()).toEqual({ code: 0, signal: null });
    expect(readFileSync(join(directory, segment))).toEqual(
      readFileSync(join(server.archiveDir, segment)),
    );
    expect(existsSync(join(directory, `.${segment}.replaced`))).toBe(true);
  });

  test('segments of another size are refused', async () => {
    const small = keep(await PostgresServer.create({ major, archive: true }));
    const directory = archiveDirectory();
    const run = keep(receive(directory, small.conninfo()));
    await run.waitForOutput(/starting log streaming/);
    await small.switchWal();
    await waitEqual(directory, small);
    await run.stop();
    const large = keep(await PostgresServer.create({ major, segmentSizeMb: 4 }));
    await expectRefusal({
      directory,
      args: ['-d', large.conninfo()],
      message: /the server is another cluster than the one stored here/,
      advice: /hint: Use another directory/,
    });
  });
});
