import { mkdir, open } from 'node:fs/promises';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { parseTablespaceMap } from '../../src/base/label.js';
import { parseManifest } from '../../src/base/manifest.js';
import { TarReader } from '../../src/base/tar.js';
import type { BaseBackupHandler } from '../../src/connection/base-backup.js';
import { connect } from '../../src/connection/connect.js';
import type { ReplicationConnection } from '../../src/connection/connection.js';
import { ServerError } from '../../src/errors.js';
import type { ServerNotice } from '../../src/protocol/backend-message.js';
import type { BackupPosition, BaseBackupOptions } from '../../src/protocol/base-backup.js';
import { rejection, settingsFor } from '../connection/fixtures.js';
import { disposer } from '../support/cleanup.js';
import { MAJORS, type Major, PostgresServer } from '../support/postgres.js';
import { giveToServer } from '../support/scratch.js';
import { TakenStream as Taken } from '../support/taken-stream.js';
import { waitFor } from '../support/wait.js';

const keep = disposer();

const OPTIONS: BaseBackupOptions = {
  label: "it's a label",
  checkpoint: 'fast',
  progress: true,
  tablespaceMap: true,
  noWait: true,
  manifest: 'yes',
  manifestChecksums: 'SHA256',
};

async function serverWithTablespaces(major: Major): Promise<PostgresServer> {
  const server = keep(await PostgresServer.create({ major, initdbArgs: ['--data-checksums'] }));
  for (const name of ['one', 'zwei ü']) {
    const dir = join(server.dir, name);
    await mkdir(dir);
    giveToServer(dir);
    await server.sql(`CREATE TABLESPACE "${name}" LOCATION '${dir}'`);
    await server.sql(`CREATE TABLE "t ${name}" TABLESPACE "${name}" AS
      SELECT i, repeat('x', 200) AS t FROM generate_series(1, 10000) i`);
  }
  await server.sql('CHECKPOINT');
  return server;
}

async function session(
  server: PostgresServer,
  onNotice?: (notice: ServerNotice) => void,
): Promise<ReplicationConnection> {
  const connection = await connect(
    settingsFor('127.0.0.1', server.port),
    onNotice ? { onNotice } : {},
  );
  keep({ [Symbol.asyncDispose]: async () => connection.destroy() });
  return connection;
}

test.each(MAJORS)('a backup of PostgreSQL %i is whole, with its tablespaces', async (major) => {
  const server = await serverWithTablespaces(major);
  const connection = await session(server);
  const taken = new Taken();
  const { end } = await connection.baseBackup(OPTIONS, taken).done;

  const rows = await server.sql<{ oid: number; location: string }>(
    `SELECT oid::int, pg_tablespace_location(oid) AS location FROM pg_tablespace
      WHERE spcname NOT LIKE 'pg_%' ORDER BY oid`,
  );
  const expected = rows.map(({ oid, location }) => ({
    oid,
    location: Buffer.from(location).toString('latin1'),
  }));
  const byOid = [...taken.tablespaces].sort((a, b) => (a.oid ?? 1e9) - (b.oid ?? 1e9));
  expect(byOid).toMatchObject([...expected, { oid: undefined, location: undefined }]);
  expect(taken.tablespaces.at(-1)?.oid).toBeUndefined();
  expect(taken.tablespaces.every(({ size }) => size !== undefined && size > 1e6)).toBe(true);
  expect(taken.archives.map(({ name, oid, location }) => ({ name, oid, location }))).toEqual(
    taken.tablespaces.map(({ oid, location }) => ({
      name: oid === undefined ? 'base.tar' : `${oid}.tar`,
      ...{ oid, location },
    })),
  );

  // Each file of the manifest is in a tar, and the other way round.
  const { manifest, label, start } = taken;
  const files = [...taken.members.entries()].filter(([, { type }]) => type === 'file');
  expect(files.map(([name]) => name).sort()).toEqual(manifest.files.map((f) => f.path).sort());
  for (const { path, size } of manifest.files) expect(taken.members.get(path)?.size).toBe(size);
  expect(files.at(-1)?.[0]).toBe('global/pg_control');

  expect(label).toMatchObject({ label: "it's a label", from: 'primary', ...labelStart(start) });
  expect(manifest.walRanges).toEqual([{ timeline: 1, start: start?.lsn, end: end.lsn }]);
  expect(end.timeline).toBe(1);
  const map = parseTablespaceMap(taken.contents.get('tablespace_map') as Buffer);
  expect(
    map.map(({ oid, path }) => ({ oid, location: path })).sort((a, b) => a.oid - b.oid),
  ).toEqual(expected);
  if (major >= 15) {
    // The server counts the bytes before they are framed.
    expect(taken.progress.at(-1)).toBe(taken.archives.reduce((sum, a) => sum + a.bytes, 0));
  } else expect(taken.progress).toEqual([]);

  // The connection goes on.
  expect((await connection.identifySystem()).timeline).toBe(1);
  const again = new Taken();
  await connection.baseBackup({ label: 'x', checkpoint: 'fast', noWait: true }, again).done;
  expect(again.tablespaces.every(({ size }) => size === undefined)).toBe(true);
  expect(again.archives).toHaveLength(3);
  await connection.close();
});

function labelStart(start: BackupPosition | undefined) {
  return { start: start?.lsn, timeline: start?.timeline };
}

test.each(MAJORS)('damaged pages fail a backup of %i behind all its data', async (major) => {
  const server = await serverWithTablespaces(major);
  const [file] = await server.sql<{ path: string }>(
    `SELECT pg_relation_filepath('"t one"') AS path`,
  );
  await server.sql('CHECKPOINT');
  const handle = await open(join(server.dataDir, file?.path as string), 'r+');
  await handle.write(Buffer.from([0x55, 0xaa, 0x55]), 0, 3, 3 * 8192 + 5000);
  await handle.close();
  const notices: string[] = [];
  const connection = await session(server, ({ message }) => notices.push(message));
  const taken = new Taken();
  const error = await rejection<ServerError>(connection.baseBackup(OPTIONS, taken).done);
  expect(error).toBeInstanceOf(ServerError);
  expect(error.sqlstate).toBe('XX001');
  expect(taken.manifest.files.length).toBeGreaterThan(100);
  expect(notices.join('\n')).toContain('checksum verification failed');
  // Not asked to verify, the server says nothing; the session is as good as before.
  await connection.baseBackup({ ...OPTIONS, verifyChecksums: false }, new Taken()).done;
  await connection.close();
});

test.each(MAJORS)(
  'a tablespace within the data directory of %i has a tar of its own, or is left out',
  async (major) => {
    const server = keep(await PostgresServer.create({ major }));
    await server.sql('ALTER SYSTEM SET allow_in_place_tablespaces = on');
    await server.configure({});
    await server.sql("CREATE TABLESPACE inside LOCATION ''");
    await server.sql('CREATE TABLE t TABLESPACE inside AS SELECT generate_series(1, 1000) AS i');
    const [row] = await server.sql<{ oid: number; path: string }>(
      `SELECT oid::int, pg_relation_filepath('t') AS path FROM pg_tablespace WHERE spcname = 'inside'`,
    );
    const taken = new Taken();
    const connection = await session(server);
    await connection.baseBackup(OPTIONS, taken).done;
    const location = `pg_tblspc/${row?.oid}`;
    const found = taken.tablespaces.filter(({ oid }) => oid !== undefined);
    const inManifest = taken.manifest.files.some(({ path }) => path === row?.path);
    if (major >= 16) {
      expect(found).toMatchObject([{ oid: row?.oid, location }]);
      expect(taken.archives[0]).toMatchObject({ name: `${row?.oid}.tar`, location });
      expect(taken.members.has(row?.path as string)).toBe(true);
    } else expect(found).toEqual([]);
    expect(inManifest).toBe(major >= 16);
    // Neither a link nor a line of the map leads there.
    expect(taken.contents.get('tablespace_map')).toEqual(Buffer.alloc(0));
    await connection.close();
  },
);

test.each(MAJORS)('a backup of a standby of %i with its WAL', async (major) => {
  const primary = keep(await PostgresServer.create({ major }));
  await primary.sql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS i');
  const standby = keep(await primary.createStandby());
  await primary.sql('CHECKPOINT');
  await waitFor(async () => (await standby.currentLsn()) >= (await primary.currentLsn()), {
    what: 'the standby to follow',
  });
  const connection = await session(standby);
  const taken = new Taken();
  const options: BaseBackupOptions = { ...OPTIONS, wal: true, maxRate: 1048576 };
  const { end } = await connection.baseBackup(options, taken).done;
  expect(taken.label.from).toBe('standby');
  expect(taken.members.get(`pg_wal/${taken.label.startSegment}`)?.size).toBe(1024 * 1024);
  expect(end.lsn >= (taken.start as BackupPosition).lsn).toBe(true);
  await connection.close();
});

test.each(MAJORS.filter((major) => major >= 15))('%i compresses itself', async (major) => {
  const server = keep(await PostgresServer.create({ major }));
  const connection = await session(server);
  const chunks: Buffer[] = [];
  const archives: string[] = [];
  const manifest: Buffer[] = [];
  const handler: BaseBackupHandler = {
    onStart() {},
    onArchive: ({ name }) => archives.push(name),
    onData: (chunk) => chunks.push(Buffer.from(chunk)),
    onManifest: (chunk) => manifest.push(Buffer.from(chunk)),
  };
  const compression = { method: 'gzip', level: 1 } as const;
  await connection.baseBackup({ ...OPTIONS, compression }, handler).done;
  expect(archives).toEqual(['base.tar']);
  const names: string[] = [];
  const tar = new TarReader({
    member: ({ name, type }) => type === 'file' && names.push(name),
    content() {},
    done() {},
  });
  tar.feed(gunzipSync(Buffer.concat(chunks)));
  tar.end();
  const { files } = parseManifest(Buffer.concat(manifest));
  expect(names.sort()).toEqual(files.map(({ path }) => path).sort());
  await connection.close();
});

test('a backup that is broken off ends on the server too, and another can follow', async () => {
  const server = keep(await PostgresServer.create({ major: 18 }));
  const connection = await session(server);
  const controller = new AbortController();
  const handler: BaseBackupHandler = {
    onStart() {},
    onArchive() {},
    onData: () => controller.abort(new Error('enough')),
    onManifest() {},
  };
  const slow = { ...OPTIONS, maxRate: 1024 };
  const { done } = connection.baseBackup(slow, handler, controller.signal);
  await expect(done).rejects.toThrow('enough');
  await waitFor(async () => (await server.walSenderPids()).length === 0, {
    what: 'the walsender to go',
  });
  const next = await session(server);
  await next.baseBackup(OPTIONS, new Taken()).done;
  await next.close();
});
