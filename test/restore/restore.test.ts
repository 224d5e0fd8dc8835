import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { Lsn } from '../../src/lsn.js';
import { controlSettings } from '../../src/server/control-file.js';
import { openFileStore } from '../../src/store/file/file-store.js';
import { run } from '../cli/run.js';
import { scratchDir } from '../support/scratch.js';
import { type StoreBackup, storeBackup, tarOf } from '../support/stored-backup.js';
import { archiveOf, SEGMENT, SYSTEM_ID } from '../support/wal-archive.js';
import { loadFixture } from '../wal/fixtures.js';
import { BASE, IN_PLACE, SPACE } from './restorable.js';

const { start, end } = loadFixture('switch');
/** Of the one commit in the WAL. */
const COMMIT = '0/C000A8';
const ID = '20261127T201500F-3fa91c';

async function archive(options: Partial<StoreBackup> = {}) {
  const { dir } = archiveOf('switch');
  const store = await openFileStore(dir, { init: true });
  const point = { timeline: 1, time: '2026-11-20T21:58:00.000Z' };
  const record = await storeBackup({
    ...{ store, frame: 9000, volume: 20_000, id: ID },
    tars: [
      { name: '16388.tar', oid: 16388, bytes: tarOf(SPACE) },
      { name: '16389.tar', oid: 16389, bytes: tarOf(IN_PLACE) },
      { name: 'base.tar', bytes: tarOf(BASE) },
    ],
    ...options,
    record: {
      ...{ systemId: SYSTEM_ID, segmentSize: SEGMENT, serverVersion: 180004 },
      start: { ...point, lsn: (start + 0x28n) as Lsn },
      end: { ...point, lsn: (start + 0x80n) as Lsn },
      tablespaces: [
        { oid: 16388, location: '/old/space', inPlace: false },
        { oid: 16389, location: 'pg_tblspc/16389', inPlace: true },
      ],
      ...options.record,
    },
  });
  await store.close();
  const root = scratchDir('restored');
  return { dir, record, root, data: join(root, 'data') };
}

type Made = Awaited<ReturnType<typeof archive>>;

/** The command line; the server that is to run walkeep is none of these tests. */
function restore({ dir, root, data }: Made, ...args: string[]) {
  const owner = process.getuid?.() === 0 ? ['--owner', '65534:65534'] : [];
  const mapping = ['-T', `/old/space=${join(root, 'one')}`];
  return run(
    'walkeep',
    'restore',
    ...owner,
    ...mapping,
    '--restore-command',
    'x',
    ...args,
    dir,
    data,
  );
}

describe('walkeep restore', () => {
  it('prints its plan and writes nothing', async () => {
    const made = await archive();
    const planned = await restore(made, '-n');
    expect(planned.stderr).toBe('');
    expect(planned.code).toBe(0);
    expect(planned.stdout).toMatch(new RegExp(`backup +${ID}`));
    const args = ['-n', '-T', `/old/space=${join(made.root, 'one')}`, '-D', made.dir, made.data];
    const owner = process.getuid?.() === 0 ? ['--owner', '65534:65534'] : [];
    const named = await run('walkeep', 'restore', '--restore-command', 'x', ...owner, ...args);
    expect(named.stdout).toBe(planned.stdout);
    expect(planned.stdout).toMatch(/tablespace +\/old\/space -> .*one/);
    expect(planned.stdout).toMatch(/recovery_target_timeline = '1'/);
    expect(readdirSync(made.root)).toEqual([]);
    const json = await restore(made, '-n', '--json', '--to', COMMIT);
    expect(JSON.parse(json.stdout)).toMatchObject({
      backup: { id: ID },
      target: { kind: 'lsn', lsn: COMMIT },
      located: { setting: { name: 'recovery_target_lsn', value: COMMIT, inclusive: true } },
    });
  });

  it.each([
    [],
    ['--to', COMMIT, '--before', '--action', 'promote', '--keep-sync', '--keep-archiving'],
    ['--standby', '--primary-conninfo', "host=a application_name='it''s 100%'"],
    ['--backup', ID, '--timeline', '1', '--waldir', '/nowhere/w a l', '--config-dir', '/nowhere/c'],
  ])('prints the command that does the same: %j', async (...args) => {
    const made = await archive();
    const planned = await restore(made, '-n', '--json', ...args);
    expect(planned.code, planned.stderr).toBe(0);
    const { command } = JSON.parse(planned.stdout);
    const words = execFileSync('sh', ['-c', `printf '%s\\0' ${command}`], { encoding: 'utf8' });
    const [, ...parts] = words.split('\0').slice(0, -1);
    for (const arg of args) expect(parts).toContain(arg);
    const again = await run('walkeep', ...parts, '-n', '--json');
    const plain = ({ space, ...rest }: Record<string, unknown>) => rest;
    expect(plain(JSON.parse(again.stdout))).toEqual(plain(JSON.parse(planned.stdout)));
  });

  it('asks no archive for what the backup brings along', async () => {
    const dir = scratchDir('alone');
    const point = { timeline: 1, time: '2026-11-20T21:58:00.000Z' };
    await storeBackup({
      store: await openFileStore(dir, { init: true }),
      tars: [{ name: 'base.tar', bytes: tarOf(BASE) }],
      record: {
        ...{ systemId: SYSTEM_ID, segmentSize: SEGMENT, serverVersion: 180004, wal: 'included' },
        start: { ...point, lsn: (start + 0x28n) as Lsn },
        end: { ...point, lsn: (start + 0x80n) as Lsn },
      },
    });
    const owner = process.getuid?.() === 0 ? ['--owner', '65534:65534'] : [];
    const data = join(scratchDir('restored'), 'data');
    const { code, stdout, stderr } = await run('walkeep', 'restore', '-n', ...owner, dir, data);
    expect(code, stderr).toBe(0);
    // PostgreSQL ends its recovery where a restore_command fails in another way than "not there".
    expect(stdout).toContain("restore_command = 'false'");
  });

  it('restores, says what to do next, and overwrites nothing', async () => {
    const manifest = Buffer.from('{ "PostgreSQL-Backup-Manifest-Version": 1,\n');
    const made = await archive({ others: { backup_manifest: manifest } });
    const { code, stderr } = await restore(made);
    expect(code, stderr).toBe(0);
    expect(readFileSync(join(made.data, 'backup_manifest'))).toEqual(manifest);
    expect(stderr).toMatch(/pg_ctl -D .* start/);
    expect(stderr).toMatch(/--finish/);
    expect(readdirSync(made.data)).toContain('recovery.signal');
    expect(readFileSync(join(made.data, 'tablespace_map'), 'utf8')).toBe(
      `16388 ${join(made.root, 'one')}\n`,
    );
    expect(existsSync(join(made.data, '.walkeep-restore'))).toBe(false);
    expect(existsSync(join(made.data, '.walkeep-lock'))).toBe(false);
    const again = await restore(made);
    expect(again.code).toBe(3);
    expect(again.stderr).toMatch(/is not empty/);
  });

  it.each([
    [['--to', '0/100'], /before the backup/, /immediate/],
    [['--to', '0/F000000'], /ends at/, /latest/],
    [['--to', '2030-01-01 00:00:00Z'], /after the last commit/, /latest/],
    [['--to', '2020-01-01 00:00:00Z'], /before the backup|inside the backup/, /immediate/],
    [['--to', 'name:none'], /not in the WAL/, undefined],
    [['--to', 'xid:5'], /not in the WAL/, undefined],
  ] as const)('refuses %j before anything is written', async (args, message, hint) => {
    const made = await archive();
    const { code, stderr } = await restore(made, ...args);
    expect(code, stderr).toBe(2);
    expect(stderr).toMatch(message);
    if (hint) expect(stderr).toMatch(hint);
    expect(readdirSync(made.root)).toEqual([]);
  });

  it('refuses directories that it cannot have', async () => {
    const made = await archive();
    const refused = async (at: Partial<Made>, ...args: string[]) => {
      const { code, stderr } = await restore({ ...made, ...at }, ...args);
      expect(code, stderr).toBe(3);
      return stderr;
    };
    expect(await refused({ data: join(made.dir, 'data') })).toMatch(/in each other/);
    expect(await refused({ data: dirname(made.dir) })).toMatch(/in each other/);
    expect(await refused({}, '--waldir', join(made.root, 'data', 'wal'))).toMatch(/two things/);
    mkdirSync(join(made.root, 'one'));
    writeFileSync(join(made.root, 'one', 'theirs'), '');
    expect(await refused({})).toMatch(/one" is not empty/);
    expect(existsSync(made.data)).toBe(false);
  });

  it('restores into the directories that links lead to, and knows one by two names', async () => {
    const made = await archive();
    const real = join(made.root, 'real');
    mkdirSync(real);
    symlinkSync('real', made.data);
    symlinkSync('.', join(made.root, 'again'));
    const inside = ['-T', `/old/space=${join(made.root, 'again', 'real', 'ts')}`];
    const { code, stderr } = await restore(made, ...inside);
    expect(stderr).toMatch(/two things/);
    expect(code).toBe(3);
    expect(readdirSync(real)).toEqual([]);
    const done = await restore(made);
    expect(done.code, done.stderr).toBe(0);
    expect(existsSync(join(real, 'global', 'pg_control'))).toBe(true);
    const file = join(made.root, 'file');
    writeFileSync(file, '');
    const other = await restore({ ...made, data: file });
    expect(other).toMatchObject({ code: 3, stderr: expect.stringMatching(/is no directory/) });
  });

  it('refuses a backup or a tablespace that is not there', async () => {
    const made = await archive();
    const wrong = await restore(made, '--backup', '20200101T000000F-000000');
    expect(wrong).toMatchObject({ code: 1, stderr: expect.stringContaining(ID) });
    const space = await restore(made, '-T', '/none=/else');
    expect(space).toMatchObject({ code: 1, stderr: expect.stringContaining('/old/space') });
    const other = await archive({ record: { systemId: 1n } });
    expect(await restore(other)).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/no complete/),
    });
  });

  it('says which zone it took', async () => {
    const made = await archive();
    const { stderr } = await restore(made, '-n', '--to', '2026-11-20 22:01');
    expect(stderr).toMatch(/no zone/);
    const found = await restore(made, '-n', '--to', COMMIT);
    expect(found.stderr).not.toMatch(/no zone/);
  });

  it('names the object in which a bit is another one, and cannot be started', async () => {
    const made = await archive({ codec: 'gzip' });
    const below = join(made.dir, 'backups', ID);
    for (const name of readdirSync(below)) {
      const path = join(below, name);
      const bytes = readFileSync(path);
      for (const at of [0, bytes.length >> 1, bytes.length - 1]) {
        const changed = Buffer.from(bytes);
        changed[at]! ^= 1 << (at % 8);
        writeFileSync(path, changed);
        const { code, stderr } = await restore(made);
        expect(code, `${name} ${at}`).not.toBe(0);
        expect(stderr, `${name} ${at}`).toContain(`backups/${ID}/${name}`);
        expect(existsSync(join(made.data, 'global', 'pg_control'))).toBe(false);
      }
      writeFileSync(path, bytes);
    }
    // The next run takes what they left for what it is.
    const { code, stderr } = await restore(made);
    expect(code, stderr).toBe(0);
    expect(stderr).toMatch(/begun again/);
  });

  it('brings back configuration that was outside, so that it leads to the restored server', async () => {
    const conf =
      "data_directory = '/var/lib/old'\nhba_file = '/etc/pg/main/pg_hba.conf'\nport = 5\n";
    const base = BASE.filter(({ name }) => !/^(postgresql|pg_hba)\.conf$/.test(name));
    const made = await archive({
      tars: [{ name: 'base.tar', bytes: tarOf(base) }],
      others: {
        'outside.0': Buffer.from(conf),
        'outside.1': Buffer.from('local all all trust\n'),
        'outside.2': Buffer.from('work_mem = 1MB\n'),
      },
      record: {
        tablespaces: [],
        outside: [
          { kind: 'settings', path: '/etc/pg/main/postgresql.conf', object: 'outside.0' },
          { kind: 'authentication', path: '/etc/pg/main/pg_hba.conf', object: 'outside.1' },
          { kind: 'settings', path: '/etc/pg/main/conf.d/x.conf', object: 'outside.2' },
          { kind: 'authentication', path: '/etc/pg/main/pg_ident.conf' },
          { kind: 'tls', path: '/etc/ssl/server.key' },
        ],
      },
    });
    const owner = process.getuid?.() === 0 ? ['--owner', '65534'] : [];
    const options = [...owner, '--restore-command', 'x'];
    const first = await run('walkeep', 'restore', ...options, made.dir, made.data);
    expect(first.code, first.stderr).toBe(0);
    expect(first.stderr).toMatch(/does not have the content of "\/etc\/pg\/main\/pg_ident.conf"/);
    const text = readFileSync(join(made.data, 'postgresql.conf'), 'utf8');
    expect(text).not.toMatch(/^data_directory/m);
    expect(text).toContain(`\nhba_file = '${made.data}/pg_hba.conf'\nport = 5\n`);
    expect(readFileSync(join(made.data, 'pg_hba.conf'), 'utf8')).toBe('local all all trust\n');
    expect(readFileSync(join(made.data, 'conf.d', 'x.conf'), 'utf8')).toBe('work_mem = 1MB\n');
    const elsewhere = join(made.root, 'etc');
    const data = join(made.root, 'second');
    const where = ['--config-dir', elsewhere];
    const second = await run('walkeep', 'restore', ...options, ...where, made.dir, data);
    expect(second.code, second.stderr).toBe(0);
    expect(readFileSync(join(elsewhere, 'postgresql.conf'), 'utf8')).toContain(
      `\ndata_directory = '${data}'\n`,
    );
    expect(second.stderr).toContain(`pg_ctl -D ${elsewhere}`);
    const third = join(made.root, 'third');
    const refused = await run('walkeep', 'restore', ...options, ...where, made.dir, third);
    expect(refused).toMatchObject({
      code: 3,
      stderr: expect.stringContaining('nothing is overwritten'),
    });
  });

  it('makes configuration that was outside readable wherever it goes', async () => {
    const conf = [
      "include_dir = 'conf.d'",
      "include_dir '/srv/shared.d'",
      "include_dir '/srv/none.d'",
      "include '/srv/one.conf'",
      "include 'unread.conf'",
      "include_if_exists = 'maybe.conf'",
      "hba_file = '/etc/pg/main/pg_hba.conf'",
      '',
    ].join('\n');
    const base = BASE.filter(({ name }) => !/^(postgresql|pg_hba)\.conf$/.test(name));
    const made = await archive({
      tars: [{ name: 'base.tar', bytes: tarOf(base) }],
      others: {
        'outside.0': Buffer.from(conf),
        'outside.1': Buffer.from('work_mem = 1MB\n'),
        'outside.2': Buffer.from('local all all trust\n'),
      },
      record: {
        tablespaces: [],
        outside: [
          { kind: 'settings', path: '/etc/pg/main/postgresql.conf', object: 'outside.0' },
          { kind: 'authentication', path: '/etc/pg/main/pg_hba.conf', object: 'outside.2' },
          { kind: 'directory', path: '/etc/pg/main/conf.d' },
          { kind: 'directory', path: '/srv/none.d' },
          { kind: 'directory', path: '/srv/shared.d' },
          { kind: 'settings', path: '/srv/shared.d/a.conf', object: 'outside.1' },
          { kind: 'settings', path: '/srv/one.conf', object: 'outside.1' },
          { kind: 'settings', path: '/etc/pg/main/unread.conf' },
        ],
      },
    });
    const owner = process.getuid?.() === 0 ? ['--owner', '65534'] : [];
    const data = join(made.root, 'donn\u00e9es \u4e2d');
    const options = [...owner, '--restore-command', 'x', '--config-dir', join(data, 'etc')];
    const { code, stderr } = await run('walkeep', 'restore', ...options, made.dir, data);
    expect(code, stderr).toBe(0);
    const etc = join(data, 'etc');
    const text = readFileSync(join(etc, 'postgresql.conf'), 'utf8');
    const counted = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
    expect(counted).toEqual([
      "include_dir = 'conf.d'",
      `include = '${etc}/a.conf'`,
      `include = '${etc}/one.conf'`,
      "include_if_exists = 'maybe.conf'",
      `hba_file = '${etc}/pg_hba.conf'`,
    ]);
    // It was empty, and a server does not start without it.
    expect(readdirSync(join(etc, 'conf.d'))).toEqual([]);
    expect(readFileSync(join(etc, 'one.conf'), 'utf8')).toBe('work_mem = 1MB\n');
    expect(stderr).not.toMatch(/content of ".*\.d"/);
    expect(stderr).toMatch(/content of ".*unread\.conf"/);
  });

  it("fills PolarDB's two directories", async () => {
    const base = BASE.filter(({ name }) => name !== 'global/pg_control');
    const made = await archive({
      tars: [
        { name: 'base.tar', bytes: tarOf(base) },
        { name: 'data.tar', bytes: tarOf([{ name: 'global', type: 'directory' }, BASE.at(-1)!]) },
      ],
      record: { tablespaces: [] },
    });
    const owner = process.getuid?.() === 0 ? ['--owner', '65534'] : [];
    const polar = join(made.root, 'polar');
    const options = [...owner, '--restore-command', 'x', '--polar-data', polar];
    const { code, stderr } = await run('walkeep', 'restore', ...options, made.dir, made.data);
    expect(code, stderr).toBe(0);
    expect(existsSync(join(polar, 'global', 'pg_control'))).toBe(true);
    expect(existsSync(join(polar, '.walkeep-restore'))).toBe(false);
    expect(readFileSync(join(made.data, 'postgresql.auto.conf'), 'utf8')).toContain(
      `polar_datadir = 'file-dio://${polar}'`,
    );
  });
});

it('reads what the WAL counts on from a pg_control', () => {
  expect(controlSettings(Buffer.alloc(100))).toBeUndefined();
  expect(controlSettings(Buffer.alloc(8192))).toBeUndefined();
  expect(end).toBeGreaterThan(start);
});
