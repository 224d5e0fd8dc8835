import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { generateIdentity, identityToRecipient } from 'age-encryption';
import { expect, test, vi } from 'vitest';
import { NoIncrementalError } from '../../src/errors.js';
import { summarizingServer } from '../support/backup-chain.js';
import { disposer } from '../support/cleanup.js';
import { PostgresServer } from '../support/postgres.js';
import { archiveDirectory, writeWal } from '../support/receiving.js';
import { scratchDir } from '../support/scratch.js';
import { backupOf } from '../support/taken-backup.js';
import { waitFor } from '../support/wait.js';
import { expectClean, wholeBackups } from '../support/whole-backups.js';

vi.setConfig({ testTimeout: 180_000 });

const keep = disposer();

/** What takes a full backup instead, or fails for that reason where it may not. */
async function refusal(
  server: PostgresServer,
  archive: string,
  options: Parameters<typeof backupOf>[2] = {},
): Promise<NoIncrementalError> {
  const before = wholeBackups(archive).complete.length;
  const wanted = { wal: 'include', incremental: 'last', ...options } as const;
  const failed = await backupOf(server, archive, { ...wanted, fallback: false }).catch((e) => e);
  expect(failed).toBeInstanceOf(NoIncrementalError);
  expectClean(archive);
  expect(wholeBackups(archive).complete).toHaveLength(before);
  const { record, fallback } = await backupOf(server, archive, wanted);
  expect(record).not.toHaveProperty('parent');
  expect(record.id[15]).toBe('F');
  // Where a checkpoint is differs from one to the next.
  const plain = (text = '') => text.replaceAll(/[0-9A-F]+\/[0-9A-F]+/g, 'LSN');
  const told = `taking a full backup instead of an incremental one: ${failed.message}`;
  expect(fallback?.code).toBe('WK_NO_INCREMENTAL');
  expect(plain(fallback?.message)).toBe(plain(told));
  expect(record.warnings).toContain(fallback?.message);
  expectClean(archive);
  return failed;
}

test('a full backup is taken, and why is said, where the server cannot tell what changed', async () => {
  const server = keep(await summarizingServer(18, { settings: { wal_keep_size: '0' } }));
  const archive = archiveDirectory();
  expect((await refusal(server, archive)).message).toBe(
    'there is no backup that it can be based on',
  );
  const missing = '20260101T000000F-000000';
  await expect(backupOf(server, archive, { incremental: missing })).rejects.toMatchObject({
    code: 'WK_USAGE',
    message: expect.stringContaining(`has no backup ${missing}`),
  });

  await server.configure({ summarize_wal: 'off' });
  const off = await refusal(server, archive);
  expect(off.message).toBe('the server does not summarize its WAL');
  expect(off.hint).toContain('summarize_wal = on');
  // What was written since that backup is gone before it was summarized: only the server knows.
  const wal = join(server.dataDir, 'pg_wal');
  const first = await server.currentSegment();
  await waitFor(
    async () => {
      await writeWal(server);
      await server.switchWal();
      await server.sql('CHECKPOINT');
      return !existsSync(join(wal, first));
    },
    { what: 'a segment to go' },
  );
  await server.configure({ summarize_wal: 'on' });
  const gone = await refusal(server, archive);
  expect(gone.message).toMatch(/^the server refuses: WAL summaries are required on timeline 1/);
  expect(gone.hint).toContain('wal_summary_keep_time');
  // What was taken instead can be based on.
  const next = await backupOf(server, archive, { wal: 'include', incremental: 'last' });
  expect(next).not.toHaveProperty('fallback');
  expect(next.record.parent).toBeDefined();

  // Of a damaged one nothing is known that could be sent: the one before does.
  const last = next.id;
  writeFileSync(join(archive, 'backups', last, 'backup.json'), 'no record');
  const other = await backupOf(server, archive, { wal: 'include', incremental: 'last' });
  expect(other.record.parent).toBe(next.record.parent);
  const named = backupOf(server, archive, { incremental: last, fallback: false });
  await expect(named).rejects.toMatchObject({
    code: 'WK_NO_INCREMENTAL',
    message: expect.stringContaining(`backup ${last}: `),
  });
});

test('a server before 17 has no incremental backups', async () => {
  const server = keep(await PostgresServer.create({ major: 16 }));
  const error = await refusal(server, archiveDirectory());
  expect(error.message).toBe('the server is older than PostgreSQL 17');
});

test('an encrypted manifest is sent to the server by who has the key', async () => {
  const server = keep(await summarizingServer(17));
  const identity = await generateIdentity();
  const file = join(scratchDir('identity'), 'key.txt');
  writeFileSync(file, `${identity}\n`);
  const archive = archiveDirectory();
  const recipients = [await identityToRecipient(identity)];
  await backupOf(server, archive, { wal: 'include', recipients });
  const closed = await refusal(server, archive, { recipients });
  expect(closed.hint).toContain('--identity');
  const options = { wal: 'include', recipients, keys: { identityFiles: [file] } } as const;
  const { record } = await backupOf(server, archive, { ...options, incremental: 'full' });
  expect(record).toMatchObject({ encrypted: true, parent: expect.any(String) });
});

test('standbys: one that idles refuses, one that was promoted goes on from before', async () => {
  const primary = keep(await summarizingServer(18));
  const archive = archiveDirectory();
  await primary.sql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS i');
  const standby = keep(await primary.createStandby());
  const followed = () =>
    waitFor(async () => (await standby.currentLsn()) >= (await primary.currentLsn()), {
      what: 'the standby to follow',
    });
  await primary.sql('CHECKPOINT');
  await primary.sql('INSERT INTO t SELECT generate_series(1, 1000)');
  await followed();
  await backupOf(standby, archive, { wal: 'include' });
  const idle = await refusal(standby, archive);
  expect(idle.message).toMatch(/manifest requires WAL from final timeline 1 ending at/);
  expect(idle.hint).toContain('CHECKPOINT');

  // One from the primary, then one from the standby on what is a new timeline by then.
  const before = await backupOf(primary, archive, { wal: 'include' });
  await primary.sql('DELETE FROM t WHERE i < 10');
  await followed();
  await standby.promote();
  await standby.sql('DELETE FROM t WHERE i < 20');
  const take = (incremental: string) =>
    backupOf(standby, archive, { wal: 'include', incremental, fallback: false });
  const over = await take(before.id);
  expect(over.record).toMatchObject({ parent: before.id, start: { timeline: 2 } });
  expect(over.record.incrementalFrom?.timeline).toBe(1);
  expect((await take('last')).record.parent).toBe(over.id);

  // The old primary goes on: what it has done since is nothing that the new one has.
  await primary.sql('INSERT INTO t SELECT generate_series(1, 1000)');
  const stray = await backupOf(primary, archive, { wal: 'include' });
  const parted = await refusal(standby, archive, { incremental: stray.id });
  expect(parted.message).toMatch(new RegExp(`^backup ${stray.id}: it was taken at .* timeline 1`));
  expect((await take('last')).record.parent).not.toBe(stray.id);
});
