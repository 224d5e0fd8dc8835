import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { listBackups, listFiles } from '../../src/backups/list-backups.js';
import { type BackupRecord, parseBackupRecord } from '../../src/base/backup-record.js';
import { connect } from '../../src/connection/connect.js';
import type { ReplicationConnection } from '../../src/connection/connection.js';
import { ServerError } from '../../src/errors.js';
import { expirePlace } from '../../src/expire/expire.js';
import { keepBackup } from '../../src/expire/keep.js';
import type { BackupPosition, BaseBackupOptions } from '../../src/protocol/base-backup.js';
import { rejection, settingsFor } from '../connection/fixtures.js';
import { summarizingServer, takeChain } from '../support/backup-chain.js';
import { disposer } from '../support/cleanup.js';
import { runCli } from '../support/cli.js';
import { MAJORS, PostgresServer } from '../support/postgres.js';
import { archiveDirectory } from '../support/receiving.js';
import { backupOf } from '../support/taken-backup.js';
import { TakenStream } from '../support/taken-stream.js';
import { expectClean, wholeBackups } from '../support/whole-backups.js';

vi.setConfig({ testTimeout: 120_000 });

const keep = disposer();

const NEW = MAJORS.filter((major) => major >= 17);

const OPTIONS: BaseBackupOptions = {
  ...{ label: 'x', checkpoint: 'fast', progress: true, tablespaceMap: true, noWait: true },
  ...{ manifest: 'yes', manifestChecksums: 'SHA256' },
};

async function session(server: PostgresServer): Promise<ReplicationConnection> {
  const connection = await connect(settingsFor('127.0.0.1', server.port));
  keep({ [Symbol.asyncDispose]: async () => connection.destroy() });
  return connection;
}

test.each(NEW)(
  'PostgreSQL %i sends what changed since a manifest that was uploaded in the session',
  async (major) => {
    const server = keep(await summarizingServer(major));
    await server.sql(`CREATE TABLE t AS SELECT i, repeat('x', 500) AS t
      FROM generate_series(1, 20000) i`);
    // Otherwise the first that reads them sets hint bits, which with checksums changes all pages.
    await server.sql('VACUUM t');
    const connection = await session(server);
    const full = new TakenStream();
    await connection.baseBackup(OPTIONS, full).done;
    await server.sql('UPDATE t SET i = -i WHERE i = 7');

    await connection.uploadManifest(full.manifestBytes);
    const changed = new TakenStream();
    await connection.baseBackup({ ...OPTIONS, incremental: true }, changed).done;
    const start = full.start as BackupPosition;
    expect(changed.label.incrementalFrom).toEqual({ lsn: start.lsn, timeline: start.timeline });
    expect(full.label.incrementalFrom).toBeUndefined();

    const rows = await server.sql<{ path: string }>("SELECT pg_relation_filepath('t') AS path");
    const { path } = rows[0] as { path: string };
    const name = path.replace(/([^/]+)$/, 'INCREMENTAL.$1');
    const whole = full.members.get(path)?.size as number;
    expect(changed.members.has(path)).toBe(false);
    expect(changed.members.get(name)?.size).toBeLessThan(whole / 100);
    const content = changed.contents.get(name) as Buffer;
    expect(content.readUInt32LE(0)).toBe(0xd3ae1f0d);
    const listed = changed.manifest.files.find((file) => file.path === name);
    expect(listed?.size).toBe(content.length);

    // An incremental one is itself something to be based on.
    await connection.uploadManifest(changed.manifestBytes);
    const third = new TakenStream();
    await connection.baseBackup({ ...OPTIONS, incremental: true }, third).done;
    expect(third.label.incrementalFrom?.lsn).toBe(changed.start?.lsn);
    await connection.close();
  },
);

test('what the server refuses is its error, and the session goes on', async () => {
  const server = keep(
    await PostgresServer.create({ major: 18, settings: { summarize_wal: 'on' } }),
  );
  const connection = await session(server);
  const full = new TakenStream();
  await connection.baseBackup(OPTIONS, full).done;

  const bytes = full.manifestBytes;
  const flipped = Buffer.from(bytes);
  flipped[100] = (flipped[100] as number) ^ 1;
  const damaged = await rejection<ServerError>(connection.uploadManifest(flipped));
  expect(damaged).toBeInstanceOf(ServerError);
  expect(damaged.message).toMatch(/^could not upload the manifest: /);
  // More than the socket takes at once: the server ends the COPY before all of it was sent.
  const endless = Buffer.alloc(32 << 20, 'no manifest ');
  expect(await rejection(connection.uploadManifest(endless))).toBeInstanceOf(ServerError);

  const none = connection.baseBackup({ ...OPTIONS, incremental: true }, new TakenStream()).done;
  expect((await rejection<ServerError>(none)).message).toContain('must UPLOAD_MANIFEST before');
  await connection.uploadManifest(bytes);
  await connection.baseBackup({ ...OPTIONS, incremental: true }, new TakenStream()).done;
  await connection.close();
});

/** Two tables, of which `hot` is changed. */
async function tables(server: PostgresServer): Promise<void> {
  for (const name of ['cold', 'hot']) {
    await server.sql(`CREATE TABLE ${name} AS SELECT i, repeat('x', 500) AS t
      FROM generate_series(1, 20000) i`);
    await server.sql(`VACUUM FREEZE ${name}`);
  }
}

test.each(NEW)('a chain of backups of PostgreSQL %i', async (major) => {
  const server = keep(await summarizingServer(major));
  const archive = archiveDirectory();
  await tables(server);
  const changes = [1, 2].map((n) => () => server.sql(`UPDATE hot SET i = -i WHERE i = ${n}`));
  const chain = await takeChain(server, archive, changes, { wal: 'include' });
  const [full, first, second] = chain.map(({ record }) => record) as [
    ...[BackupRecord, BackupRecord, BackupRecord],
  ];
  expect(chain.map(({ id }) => id[15])).toEqual(['F', 'I', 'I']);
  expect(full).not.toHaveProperty('parent');
  expect(first).toMatchObject({ parent: full.id, warnings: [] });
  expect(second).toMatchObject({ parent: first.id });
  const { lsn, timeline } = first.start;
  expect(second.incrementalFrom).toEqual({ lsn, timeline });
  expect(first.size).toBeLessThan(full.size / 3);
  for (const { record } of chain) {
    const bytes = readFileSync(join(archive, 'backups', record.id, 'backup.json'));
    expect(parseBackupRecord(bytes)).toEqual(record);
  }
  // What is based on the last full one does not hang on what was taken between.
  const fourth = await backupOf(server, archive, { wal: 'include', incremental: 'full' });
  expect(fourth.record.parent).toBe(full.id);
  const named = await backupOf(server, archive, {
    ...{ wal: 'include', incremental: first.id, fallback: false },
  });
  expect(named.record.parent).toBe(first.id);
  const args = ['backup', archive, '-d', server.conninfo(), '--wal=include', '-w', '--json'];
  const run = runCli([...args, '--incremental=full']);
  await run.exit;
  const told = JSON.parse(run.stdout.trim().split('\n').at(-1) as string);
  expect(told).toMatchObject({ type: 'backup', parent: full.id });
  expect(told).not.toHaveProperty('fallback');
  const list = await listBackups(archive);
  const newest = list.backups.find(({ id }) => id === second.id);
  expect(newest).toMatchObject({ chain: [first.id, full.id], kind: 'incremental' });
  expect(newest?.saved).toBeGreaterThan(0);
  const files = await listFiles(archive, named.id);
  expect(files.some(({ path }) => /INCREMENTAL\.\d+$/.test(path))).toBe(true);
  // What is based on something goes with it, and never after it; what is pinned keeps its chain.
  await keepBackup(archive, fourth.id);
  const next = await backupOf(server, archive, { wal: 'include' });
  const removed: string[] = [];
  const onRemove = (one: { kind: string; id?: string }) => void removed.push(one.id ?? one.kind);
  await expirePlace(archive, { redundancy: 1, onRemove });
  expect(removed).toHaveLength(4);
  expect(removed.indexOf(second.id)).toBeLessThan(removed.indexOf(first.id));
  expect(removed.indexOf(named.id)).toBeLessThan(removed.indexOf(first.id));
  const left = wholeBackups(archive).complete.map(({ id }) => id);
  expect(left).toEqual([full.id, fourth.id, next.id]);
  expectClean(archive);
});
