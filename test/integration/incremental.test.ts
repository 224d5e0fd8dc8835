import { expect, test, vi } from 'vitest';
import { connect } from '../../src/connection/connect.js';
import type { ReplicationConnection } from '../../src/connection/connection.js';
import { ServerError } from '../../src/errors.js';
import type { BackupPosition, BaseBackupOptions } from '../../src/protocol/base-backup.js';
import { rejection, settingsFor } from '../connection/fixtures.js';
import { disposer } from '../support/cleanup.js';
import { MAJORS, PostgresServer } from '../support/postgres.js';
import { TakenStream } from '../support/taken-stream.js';

vi.setConfig({ testTimeout: 120_000 });

const keep = disposer();

const OPTIONS: BaseBackupOptions = {
  ...{ label: 'x', checkpoint: 'fast', progress: true, tablespaceMap: true, noWait: true },
  ...{ manifest: 'yes', manifestChecksums: 'SHA256' },
};

async function session(server: PostgresServer): Promise<ReplicationConnection> {
  const connection = await connect(settingsFor('127.0.0.1', server.port));
  keep({ [Symbol.asyncDispose]: async () => connection.destroy() });
  return connection;
}

test.each(MAJORS.filter((major) => major >= 17))(
  'PostgreSQL %i sends what changed since a manifest that was uploaded in the session',
  async (major) => {
    const server = keep(await PostgresServer.create({ major, settings: { summarize_wal: 'on' } }));
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
