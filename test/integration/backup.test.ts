import { execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import { expect, test, vi } from 'vitest';
import { openArchive } from '../../src/archive/places/open-archive.js';
import { parseBackupRecord } from '../../src/base/backup-record.js';
import { openFileStore } from '../../src/store/file/file-store.js';
import { verifyArchive } from '../../src/verify/verify.js';
import { segmentFileName } from '../../src/wal/file-name.js';
import { disposer } from '../support/cleanup.js';
import { runCli } from '../support/cli.js';
import { copyPackage } from '../support/package-copy.js';
import { MAJORS, type Major, PostgresServer } from '../support/postgres.js';
import { archiveDirectory, receive } from '../support/receiving.js';
import { giveToServer, scratchDir, serverUser } from '../support/scratch.js';
import { backupOf, extractBackup, manifestDifferences } from '../support/taken-backup.js';
import { findTool } from '../support/tools.js';
import { waitFor } from '../support/wait.js';
import { workload } from '../support/workload.js';

vi.setConfig({ testTimeout: 120_000 });

const keep = disposer();

let shared: string | undefined;
/** restore_command of the package, as the servers' user runs it. */
function restoreCommand(archive: string): string {
  shared ??= copyPackage();
  const bin = join(shared, 'bin', 'walkeep');
  return `PATH=${dirname(process.execPath)}:$PATH ${bin} fetch ${archive} %f %p`;
}

function handOver(archive: string): void {
  const { uid, gid } = serverUser;
  if (uid !== undefined) execFileSync('chown', ['-R', `${uid}:${gid}`, archive]);
}

/** A server with two tablespaces, and one in place where the server can have that in a backup. */
async function serverWithTablespaces(major: Major): Promise<PostgresServer> {
  const server = keep(
    await PostgresServer.create({
      major,
      initdbArgs: ['--data-checksums'],
      // Without it no server recovers that has one in place.
      ...(major >= 17 ? { settings: { allow_in_place_tablespaces: 'on' } } : {}),
    }),
  );
  for (const name of ['one', 'zwei ü']) {
    const dir = join(server.dir, name);
    mkdirSync(dir);
    giveToServer(dir);
    await server.sql(`CREATE TABLESPACE "${name}" LOCATION '${dir}'`);
    await server.sql(`CREATE TABLE "t ${name}" TABLESPACE "${name}" AS
      SELECT i, repeat('x', 200) AS t FROM generate_series(1, 10000) i`);
  }
  if (major >= 17) {
    const client = await server.client();
    await client.query("CREATE TABLESPACE here LOCATION ''");
    await client.query('CREATE TABLE t_here TABLESPACE here AS SELECT generate_series(1, 5000) i');
    await client.end();
  }
  return server;
}

const DIGEST = `SELECT (SELECT count(*) || ' ' || coalesce(max(id), 0) FROM committed) || ' ' ||
  (SELECT md5(coalesce(string_agg(w::text, '' ORDER BY id, n), '')) FROM work w) || ' ' ||
  (SELECT sum(i) FROM "t one") || ' ' || (SELECT sum(i) FROM "t zwei ü") AS digest`;

test.each(MAJORS)(
  'a backup of a busy PostgreSQL %i is restored with tar, and recovers from the archive',
  async (major) => {
    const server = await serverWithTablespaces(major);
    const archive = archiveDirectory();
    const receiver = keep(receive(archive, server.conninfo()));
    await receiver.waitForOutput(/starting log streaming/);
    await workload(server, { transactions: 5 });
    const stop = new AbortController();
    const busy = workload(server, { transactions: 10_000, signal: stop.signal });
    const phases = new Set<string>();
    const taken = await backupOf(server, archive, {
      compression: { method: (['none', 'lz4', 'gzip', 'none', 'gzip'] as const)[major - 14]! },
      onProgress: ({ phase }) => phases.add(phase),
    });
    stop.abort();
    await busy;
    const { record } = taken;
    const stored = readFileSync(join(archive, 'backups', taken.id, 'backup.json'));
    expect(parseBackupRecord(stored)).toEqual(record);
    expect(record).toMatchObject({
      from: 'primary',
      label: taken.id,
      warnings: [],
      wal: 'archive',
    });
    expect(record.tablespaces.map(({ inPlace }) => inPlace).sort()).toEqual(
      major >= 17 ? [false, false, true] : [false, false],
    );
    const data = extractBackup(archive, taken);
    const manifest = readFileSync(join(archive, 'backups', taken.id, 'backup_manifest'));
    expect(manifestDifferences(data, manifest)).toEqual([]);
    const verifier = findTool('pg_verifybackup');
    // Newer manifests, and tablespaces in place, are not known to that of 15.
    if (verifier && major <= 16) {
      const path = join(archive, 'backups', taken.id, 'backup_manifest');
      execFileSync(verifier, ['-n', '-i', 'tablespace_map', '-m', path, data]);
    }

    const digest = (await server.sql(DIGEST))[0]?.digest;
    await server.switchWal();
    await server.stop();
    receiver.child.kill('SIGINT');
    await receiver.exit;
    handOver(archive);
    const restored = keep(
      await server.recoverFrom({
        backup: data,
        restoreCommand: restoreCommand(archive),
        targetSettings: { recovery_target_action: 'promote' },
      }),
    );
    await waitFor(
      async () => (await restored.sql('SELECT pg_is_in_recovery() AS r'))[0]?.r === false,
      {
        what: 'the end of recovery',
      },
    );
    expect((await restored.sql(DIGEST))[0]?.digest).toBe(digest);
  },
);

/** A store in a directory: nothing ships the last segment into it before it is full, or a minute old. */
async function newStore(): Promise<string> {
  const directory = join(scratchDir('store'), 'archive');
  const store = await openFileStore(directory, { init: true });
  await store.close();
  writeFileSync(
    join(directory, 'archive.json'),
    `${JSON.stringify({ format: 1, id: randomUUID() })}\n`,
  );
  return directory;
}

/** Files of base backups; empty directories are nothing. */
const filesOf = (archive: string) =>
  readdirSync(join(archive, 'backups'), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ name }) => name);

const segmentOf = async (server: PostgresServer) =>
  (await server.sql('SELECT pg_walfile_name(pg_current_wal_lsn()) AS s'))[0]?.s as string;

test.each(['directory', 'store'] as const)(
  'the backup of an idle standby into a %s ends seconds after its last byte, without a switch',
  async (kind) => {
    const major = kind === 'directory' ? 14 : 18;
    const primary = keep(await PostgresServer.create({ major, segmentSizeMb: 1 }));
    const directory = archiveDirectory();
    const receiver = keep(receive(directory, primary.conninfo()));
    await receiver.waitForOutput(/starting log streaming/);
    const place = kind === 'directory' ? directory : await newStore();
    const shipper = kind === 'store' ? keep(runCli(['ship', directory, place])) : undefined;
    await workload(primary, { transactions: 3 });
    const standby = keep(await primary.createStandby());
    // A restartpoint: what a standby's backup begins with.
    await primary.sql('CHECKPOINT');
    await workload(primary, { transactions: 1 });
    const lsn = await primary.currentLsn();
    await waitFor(async () => (await standby.currentLsn()) >= lsn, { what: 'the standby' });
    await standby.sql('CHECKPOINT');
    const before = await segmentOf(primary);
    const { record, duration } = await backupOf(standby, place);
    expect(await segmentOf(primary)).toBe(before);
    expect(record).toMatchObject({ from: 'standby', warnings: [] });
    expect(duration.whole - duration.copy).toBeLessThan(5000);
    expect(shipper?.running).not.toBe(false);
    if (kind === 'directory') return;
    // What it brought itself is what recovery finds there.
    const archive = await openArchive(place, { systemId: record.systemId });
    const name = segmentFileName(1, record.end.lsn / (1n << 20n), 1 << 20);
    const [whole] = await archive.stored(name, false);
    const [partial] = await archive.stored(name, true);
    expect(whole ?? partial).toBeDefined();
    await archive.close();
  },
);

test('a backup into a new store begins it together with whoever ships', async () => {
  const server = keep(await PostgresServer.create({ major: 17 }));
  const directory = archiveDirectory();
  const receiver = keep(receive(directory, server.conninfo()));
  await receiver.waitForOutput(/starting log streaming/);
  const path = join(scratchDir('store'), 'archive');
  expect((await runCli(['store', '--init', path]).exit).code).toBe(0);
  const recipient = await identityToRecipient(await generateX25519Identity());
  const args = ['ship', '-v', '--recipient', recipient, directory, `file://${path}`];
  const shipper = keep(runCli(args));
  const options = { recipients: [recipient], walTimeout: 60_000 };
  const { record } = await backupOf(server, `file://${path}`, options);
  expect(record).toMatchObject({ encrypted: true, wal: 'archive' });
  expect(shipper.running, shipper.stderr).toBe(true);
  // All of it is in one layout.
  expect(readdirSync(path).sort()).toEqual([
    '.walkeep-store',
    'archive.json',
    'system.json',
    'systems',
  ]);
  const into = keep(receive(path, server.conninfo()));
  expect((await into.exit).code).toBe(1);
  expect(into.stderr).toMatch(/is a store, and not for receiving into/);
});

test('without anybody who receives the WAL a backup says so first, and does not exist at last', async () => {
  const server = keep(await PostgresServer.create({ major: 15 }));
  const archive = archiveDirectory();
  const warnings: string[] = [];
  const taken = backupOf(server, archive, {
    walTimeout: 500,
    onWarning: ({ code }) => warnings.push(code),
  });
  await expect(taken).rejects.toMatchObject({
    code: 'WK_TIMEOUT',
    message: expect.stringMatching(/has no "0{7}1[0-9A-F]{16}" with WAL up to/),
  });
  expect(warnings).toEqual(['WK_NOT_RECEIVED']);
  expect(filesOf(archive)).toEqual([]);
  // Without an archive it stands on its own.
  const { record } = await backupOf(server, archive, { wal: 'include' });
  expect(record.wal).toBe('included');
});

test('a server whose pages are damaged gives no backup', async () => {
  const server = keep(await PostgresServer.create({ major: 15, initdbArgs: ['--data-checksums'] }));
  await server.sql('CREATE TABLE t AS SELECT generate_series(1, 10000) AS i');
  const [row] = await server.sql("SELECT pg_relation_filepath('t') AS path");
  await server.sql('CHECKPOINT');
  await server.stop();
  const path = join(server.dataDir, row?.path as string);
  const bytes = readFileSync(path);
  bytes[8192 + 4000] = (bytes[8192 + 4000] as number) ^ 1;
  writeFileSync(path, bytes);
  await server.start();
  const archive = archiveDirectory();
  const taken = backupOf(server, archive, { wal: 'include' });
  await expect(taken).rejects.toMatchObject({ code: 'WK_SERVER', sqlstate: 'XX001' });
  expect(filesOf(archive)).toEqual([]);
  // Who wants what is left of it says so.
  const { record } = await backupOf(server, archive, { wal: 'include', verifyChecksums: false });
  expect(record.pageChecksums).toEqual({ enabled: true, checked: false });
  // And is told which they are, of the backup that was taken as of the one that was.
  const named = `1 page has a wrong checksum: block 1 of "${row?.path}"`;
  const how = { wal: 'include', verifyChecksums: false, verifyPages: true } as const;
  const { id, record: looked } = await backupOf(server, archive, how);
  expect(looked.warnings.join()).toContain(named);
  expect(looked.pageChecksums).toEqual({ enabled: true, checked: true });
  const segment = await server.switchWal();
  copyFileSync(join(server.dataDir, 'pg_wal', segment), join(archive, segment));
  const { findings } = await verifyArchive(archive, { verifyPages: true });
  const pages = findings.filter(({ code }) => code === 'backup-page');
  expect(pages.map(({ severity }) => severity).sort()).toEqual(['error', 'warning']);
  expect(pages.find(({ file }) => file.includes(id))?.message).toBe(`backup ${id}: ${named}`);
  expect((await verifyArchive(archive)).findings.map(({ code }) => code)).not.toContain(
    'backup-page',
  );
});

test('a backup that is killed is no backup, and the next one removes what is left of it', async () => {
  const server = keep(await PostgresServer.create({ major: 16 }));
  await server.sql(
    `CREATE TABLE t AS SELECT i, repeat('x', 500) FROM generate_series(1, 200000) i`,
  );
  const archive = archiveDirectory();
  const begin = () => {
    const args = ['backup', archive, '-d', server.conninfo(), '-Z', 'none', '--wal', 'include'];
    return keep(runCli([...args, '--json', '--max-rate', '20M']));
  };
  for (const file of ['claim.json', 'base.tar.0000']) {
    const run = begin();
    const begun = () => existsSync(join(archive, 'backups')) && filesOf(archive).includes(file);
    await waitFor(begun, { what: file, intervalMs: 2 });
    run.child.kill('SIGKILL');
    await run.exit;
    expect(filesOf(archive)).toContain('claim.json');
    expect(filesOf(archive)).not.toContain('backup.json');
  }
  const left = filesOf(archive).filter((name) => name === 'claim.json').length;
  const { id, cleaned } = await backupOf(server, archive, { wal: 'include' });
  // One of them was removed by the run that was killed itself.
  expect([left, cleaned.length]).toEqual([1, 1]);
  const owners = readdirSync(join(archive, 'backups'), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ parentPath }) => parentPath.split('/backups/')[1]?.split('/')[0]);
  expect([...new Set(owners)]).toEqual([id]);
  const leases = readdirSync(join(archive, 'lease'), { recursive: true, withFileTypes: true });
  expect(leases.filter((entry) => entry.isFile())).toEqual([]);
});

test('a signal ends a backup, and nothing is left', async () => {
  const server = keep(await PostgresServer.create({ major: 17 }));
  await server.sql(
    `CREATE TABLE t AS SELECT i, repeat('x', 500) FROM generate_series(1, 100000) i`,
  );
  const archive = archiveDirectory();
  const args = ['backup', archive, '-d', server.conninfo(), '--wal', 'include', '-Z', 'none'];
  const run = keep(runCli([...args, '--max-rate', '10M']));
  const begun = () => existsSync(join(archive, 'backups')) && filesOf(archive).length > 1;
  await waitFor(begun, { what: 'the backup to begin', intervalMs: 2 });
  run.child.kill('SIGTERM');
  expect((await run.exit).code).toBe(1);
  expect(run.stderr).toContain('stopped: there is no backup, and nothing was left behind');
  expect(filesOf(archive)).toEqual([]);
});
