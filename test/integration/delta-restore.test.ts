import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { summarizingServer, takeChain } from '../support/backup-chain.js';
import { disposer } from '../support/cleanup.js';
import { copyPackage } from '../support/package-copy.js';
import { MAJORS, type Major, PostgresServer } from '../support/postgres.js';
import { archiveDirectory, receive, waitEqual } from '../support/receiving.js';
import { digestOf, RecordedRows } from '../support/recorded-rows.js';
import { handOver, readsEveryPage, recovered, walkeep, walkeepDone } from '../support/restoring.js';
import { giveToServer, killAtEnd, scratchDir } from '../support/scratch.js';
import { waitFor } from '../support/wait.js';

vi.setConfig({ testTimeout: 180_000 });

const keep = disposer();
const PAIR = ([15, 18] as const).filter((major) => MAJORS.includes(major));

/** Everything below directories: what it is, where it leads, what its bytes are. */
function treeOf(...roots: string[]): Record<string, string> {
  const found: Record<string, string> = {};
  const visit = (path: string, name: string): void => {
    const stats = lstatSync(path);
    if (stats.isSymbolicLink()) found[name] = `-> ${readlinkSync(path)}`;
    else if (stats.isDirectory()) {
      found[name] = `directory ${(stats.mode & 0o777).toString(8)}`;
      for (const one of readdirSync(path)) visit(join(path, one), `${name}/${one}`);
    } else found[name] = createHash('sha256').update(readFileSync(path)).digest('hex');
  };
  for (const [i, root] of roots.entries()) visit(root, `${i}`);
  return found;
}

async function serverWith(major: Major, spaces: readonly string[]): Promise<PostgresServer> {
  const server = keep(
    await PostgresServer.create({
      major,
      initdbArgs: ['--data-checksums'],
      settings: { autovacuum: 'off', log_filename: "'x'", max_wal_size: '64MB' },
    }),
  );
  for (const name of spaces) await createSpace(server, name);
  return server;
}

async function createSpace(server: PostgresServer, name: string): Promise<void> {
  const dir = join(server.dir, name);
  mkdirSync(dir);
  giveToServer(dir);
  await server.sql(`CREATE TABLESPACE "${name}" LOCATION '${dir}'`);
}

test.each(PAIR)(
  'the directory of a crashed server becomes what the backup has, and nothing is lost, %i',
  async (major) => {
    const server = await serverWith(major, ['ü one', 'two']);
    const rows = new RecordedRows([undefined, 'ü one']);
    await rows.prepare(server);
    await server.sql(`CREATE TABLE still AS SELECT i, md5(i::text) AS t
      FROM generate_series(1, 200000) i`);
    await server.sql('CREATE TABLE shrinks AS SELECT generate_series(1, 20000) AS i');
    await server.sql('CREATE TABLE goes TABLESPACE two AS SELECT generate_series(1, 20000) AS i');
    await server.sql('CREATE UNLOGGED TABLE unlogged AS SELECT generate_series(1, 2000) AS i');
    await server.sql('CREATE DATABASE was');
    const archive = archiveDirectory();
    const receiver = keep(receive(archive, server.conninfo()));
    await receiver.waitForOutput(/starting log streaming/);
    await rows.commits(server, { most: 3 });
    writeFileSync(join(server.dataDir, 'notes.conf'), 'notes\n');
    giveToServer(join(server.dataDir, 'notes.conf'));
    await walkeepDone(['backup', '-d', server.conninfo(), archive]);

    // All that can become of files: new ones, others, shorter ones, none.
    await rows.commits(server, { most: 3 });
    await server.sql('TRUNCATE shrinks');
    await server.sql('VACUUM FULL goes');
    await server.sql('DROP TABLE goes');
    await server.sql('DROP TABLESPACE two');
    await server.sql('DROP DATABASE was');
    await server.sql('CREATE DATABASE later');
    await server.sql('CREATE TABLE later AS SELECT generate_series(1, 50000) AS i');
    await server.sql('INSERT INTO unlogged SELECT 1');
    await createSpace(server, 'three');
    await server.sql('CREATE TABLE in_three TABLESPACE three AS SELECT 1 AS i');
    writeFileSync(join(server.dataDir, 'notes.conf'), 'other notes\n');
    await server.sql('CHECKPOINT');
    await waitEqual(archive, server);
    await receiver.stop();
    // This is nowhere but in the server's own pg_wal.
    await rows.commits(server, { most: 2 });
    await server.switchWal();
    await rows.commits(server, { most: 2 });
    const session = await server.client();
    session.on('error', () => {});
    await session.query('CREATE TEMP TABLE t AS SELECT generate_series(1, 1000) AS i');
    const { dataDir } = server;
    const spaces = ['ü one', 'two', 'three'].map((name) => join(server.dir, name));
    await server.kill9();
    handOver(archive);
    expect(existsSync(join(dataDir, 'postmaster.pid'))).toBe(true);

    const before = treeOf(dataDir, ...spaces);
    const planned = await walkeepDone(['restore', '--delta', '-n', '--json', archive, dataDir]);
    expect(treeOf(dataDir, ...spaces)).toEqual(before);
    const plan = JSON.parse(planned.stdout);
    expect(plan.delta.compared.same.bytes).toBeGreaterThan(10_000_000);
    expect(plan.delta.compared.removed.files).toBeGreaterThan(10);
    expect(plan.delta.unarchived.length).toBeGreaterThan(1);

    // Without --delta it is nobody's to write to.
    const plain = await walkeep(['restore', archive, dataDir]);
    expect(plain).toMatchObject({ code: 3, stderr: expect.stringContaining('--delta') });
    expect(treeOf(dataDir, ...spaces)).toEqual(before);

    const done = await walkeepDone(['restore', '--delta', archive, dataDir]);
    expect(existsSync(join(dataDir, '.walkeep-delta'))).toBe(false);
    const kept = readdirSync(dataDir).filter((name) => /^notes\.conf\.\d{8}T\d{6}Z$/.test(name));
    expect(kept).toHaveLength(1);
    expect(readFileSync(join(dataDir, 'notes.conf'), 'utf8')).toBe('notes\n');
    expect(readdirSync(join(server.dir, 'three'))).toEqual([]);
    expectAsFresh(dataDir, spaces.slice(0, 2), await freshTree(server, archive));

    // What it says is what saves the last commits.
    const push = /to recover that too: (.*)$/m.exec(done.stderr)?.[1] as string;
    expect(push).toMatch(/^for f in .*; do walkeep push /);
    const program = join(copyPackage(), 'bin');
    const env = { PATH: `${program}:${dirname(process.execPath)}:${process.env.PATH}` };
    await new Promise<void>((resolve, reject) =>
      execFile('/bin/sh', ['-ec', push], { env }, (e) => (e ? reject(e) : resolve())),
    );
    handOver(archive);
    await server.start();
    await recovered(server);
    const [found] = await server.sql(`SELECT ${digestOf(rows.tables)} AS digest`);
    expect(found?.digest).toBe(rows.last.digest);
    expect((await server.sql('SELECT count(*)::int AS n FROM unlogged'))[0]?.n).toBe(0);
    expect((await server.sql('SELECT count(*)::int AS n FROM in_three'))[0]?.n).toBe(1);
    await readsEveryPage(server);
  },
);

/** What a restore of the same makes in empty directories. */
async function freshTree(server: PostgresServer, archive: string) {
  const root = scratchDir('fresh', { forServer: true });
  const [one, two] = ['ü one', 'two'].map((name) => join(server.dir, name));
  const to = [join(root, 'one'), join(root, 'two')];
  const mapping = ['-T', `${one}=${to[0]}`, '-T', `${two}=${to[1]}`];
  await walkeepDone(['restore', ...mapping, archive, join(root, 'data')]);
  return treeOf(join(root, 'data'), ...to);
}

/** All that is no setting, path, or of the server that was lost is the same. */
function expectAsFresh(
  dataDir: string,
  spaces: readonly string[],
  fresh: Record<string, string>,
): void {
  const found = treeOf(dataDir, ...spaces);
  const isOther = (name: string) =>
    /^0\/(tablespace_map|postgresql\.auto\.conf|pg_tblspc\/\d+$|pg_wal\.\d+T|\.walkeep-lock|.*Z$|restore\.log)/.test(
      name,
    );
  const plain = (tree: Record<string, string>) =>
    Object.fromEntries(Object.entries(tree).filter(([name]) => !isOther(name)));
  expect(plain(found)).toEqual(plain(fresh));
}

test.each(PAIR)(
  "what is not the lost server's directory is refused, untouched, %i",
  async (major) => {
    const server = await serverWith(major, []);
    const archive = archiveDirectory();
    const receiver = keep(receive(archive, server.conninfo()));
    await receiver.waitForOutput(/starting log streaming/);
    await walkeepDone(['backup', '-d', server.conninfo(), archive]);
    const standby = keep(await server.createStandby());
    const other = keep(await PostgresServer.create({ major, fresh: true }));
    await waitEqual(archive, server);
    await receiver.stop();
    handOver(archive);

    const refused = async (dataDir: string, says: RegExp, ...args: string[]): Promise<void> => {
      const ended = await walkeep(['restore', '--delta', ...args, archive, dataDir]);
      expect(ended.stderr).toMatch(says);
      expect(ended.stderr).toMatch(/hint:/);
      expect(ended.code).toBe(3);
    };
    const untouched = async (dataDir: string, says: RegExp, ...args: string[]): Promise<void> => {
      const before = treeOf(dataDir);
      await refused(dataDir, says, ...args);
      await refused(dataDir, says, '-n', ...args);
      expect(treeOf(dataDir)).toEqual(before);
    };
    const { dataDir } = server;
    const names = readdirSync(dataDir);
    await refused(dataDir, /a server runs/);
    // Its pid file is lost: its processes are still there, and its memory.
    const lost = join(server.dir, 'postmaster.pid');
    renameSync(join(dataDir, 'postmaster.pid'), lost);
    await refused(dataDir, /a server runs/);
    renameSync(lost, join(dataDir, 'postmaster.pid'));
    expect(readdirSync(dataDir)).toEqual(names);
    await server.sql('SELECT 1');
    await refused(standby.dataDir, /standby|a server runs/);
    await standby.stop();
    await untouched(standby.dataDir, /is a standby/);
    rmSync(join(standby.dataDir, 'standby.signal'));
    await untouched(standby.dataDir, /is a standby/);
    await other.stop();
    await untouched(other.dataDir, /another cluster/);

    // A program that writes there is as bad as a server.
    await server.stop();
    const busy = execFile('sleep', ['600'], { cwd: '/' });
    const writer = execFile('sh', ['-c', `exec 7>>'${dataDir}/global/1262'; exec sleep 600`]);
    for (const child of [busy, writer]) killAtEnd(child);
    await waitFor(() => openFilesOf(writer.pid as number).some((path) => path.endsWith('/1262')), {
      what: 'a file to be open',
    });
    await untouched(dataDir, /has ".*global\/1262" open/);
    writer.kill('SIGKILL');
    await waitFor(() => openFilesOf(writer.pid as number).length === 0, { what: 'its end' });

    // Not its control file, not its version, not all of it.
    const control = readFileSync(join(dataDir, 'global/pg_control'));
    const damaged = Buffer.from(control);
    damaged[100] = (damaged[100] as number) ^ 1;
    writeFileSync(join(dataDir, 'global/pg_control'), damaged);
    await untouched(dataDir, /pg_control" is damaged/);
    rmSync(join(dataDir, 'global/pg_control'));
    await untouched(dataDir, /has no global\/pg_control/);
    writeFileSync(join(dataDir, 'global/pg_control'), control);
    giveToServer(join(dataDir, 'global/pg_control'));
    const version = readFileSync(join(dataDir, 'PG_VERSION'));
    writeFileSync(join(dataDir, 'PG_VERSION'), '13\n');
    await untouched(dataDir, /is of PostgreSQL 13/);
    writeFileSync(join(dataDir, 'PG_VERSION'), version);
    const empty = scratchDir('no cluster', { forServer: true });
    writeFileSync(join(empty, 'file'), 'x');
    await untouched(empty, /is no data directory/);

    // A number in a stale postmaster.pid that another process has by now does not stop it.
    writeFileSync(
      join(dataDir, 'postmaster.pid'),
      `${busy.pid}\n${dataDir}\n1\n${server.port}\n/tmp\nlocalhost\n  1 ${2 ** 30}\n`,
    );
    await walkeepDone(['restore', '--delta', archive, dataDir]);
    busy.kill('SIGKILL');
    await server.start();
    await recovered(server);
  },
);

test.each(MAJORS.filter((major) => major >= 17).slice(-1))(
  'of a chain of backups only what changed since the full one is read, %i',
  async (major) => {
    const server = keep(await summarizingServer(major));
    for (const name of ['cold', 'hot', 'cut']) {
      await server.sql(`CREATE TABLE ${name} AS SELECT i, repeat(md5(i::text), 15) AS t
        FROM generate_series(1, 40000) i`);
      await server.sql(`VACUUM FREEZE ${name}`);
    }
    const archive = archiveDirectory();
    const changes = [
      () => server.sql('UPDATE hot SET i = -i WHERE i < 50'),
      async () => {
        await server.sql('UPDATE hot SET i = -i WHERE i > 39000');
        await server.sql('DELETE FROM cut WHERE i > 100');
        await server.sql('VACUUM cut');
      },
    ];
    const chain = await takeChain(server, archive, changes, { wal: 'include' });
    await server.sql('DELETE FROM hot WHERE i % 2 = 0');
    await server.sql('DELETE FROM cold WHERE i = 7');
    await server.sql('INSERT INTO cut SELECT * FROM hot');
    await server.sql('CHECKPOINT');
    await server.kill9();
    handOver(archive);
    const args = [
      'restore',
      '--to',
      'immediate',
      '--action',
      'promote',
      '--restore-command',
      'false',
      archive,
    ];
    const fresh = join(scratchDir('fresh', { forServer: true }), 'data');
    await walkeepDone([...args, fresh]);
    const { dataDir } = server;
    const again = [...args.slice(0, 1), '--delta', ...args.slice(1)];
    const planned = await walkeepDone([
      ...again.slice(0, 1),
      '-n',
      '--json',
      ...again.slice(1),
      dataDir,
    ]);
    const { backup, delta } = JSON.parse(planned.stdout);
    expect(backup.id).toBe(chain.at(-1)?.id);
    // The databases that nobody used are no small part of it.
    expect(delta.compared.same.bytes).toBeGreaterThan(15_000_000);
    expect(delta.compared.changed.bytes).toBeLessThan(80_000_000);
    await walkeepDone([...again, dataDir]);
    expectAsFresh(dataDir, [], treeOf(fresh));
    await server.start();
    await recovered(server);
    const [counts] = await server.sql(`SELECT (SELECT count(*) FROM cold)::int AS cold,
      (SELECT count(*) FROM hot)::int AS hot, (SELECT count(*) FROM cut)::int AS cut`);
    expect(counts).toEqual({ cold: 40000, hot: 40000, cut: 100 });
  },
);

function openFilesOf(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/fd`).map((fd) => {
      try {
        return readlinkSync(`/proc/${pid}/fd/${fd}`);
      } catch {
        return '';
      }
    });
  } catch {
    return [];
  }
}
