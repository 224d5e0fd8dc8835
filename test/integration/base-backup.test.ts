import { mkdir, open } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { type BackupLabel, parseBackupLabel, parseTablespaceMap } from '../../src/base/label.js';
import { parseManifest } from '../../src/base/manifest.js';
import { type TarMember, TarReader } from '../../src/base/tar.js';
import type { BackupArchive, BaseBackupHandler } from '../../src/connection/base-backup.js';
import { connect } from '../../src/connection/connect.js';
import type { ReplicationConnection } from '../../src/connection/connection.js';
import { ServerError } from '../../src/errors.js';
import type { ServerNotice } from '../../src/protocol/backend-message.js';
import type {
  BackupPosition,
  BackupTablespace,
  BaseBackupOptions,
} from '../../src/protocol/base-backup.js';
import { rejection, settingsFor } from '../connection/fixtures.js';
import { disposer } from '../support/cleanup.js';
import { MAJORS, type Major, PostgresServer } from '../support/postgres.js';
import { giveToServer } from '../support/scratch.js';

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

/** Takes a backup apart as it comes. */
class Taken implements BaseBackupHandler {
  start: BackupPosition | undefined;
  tablespaces: readonly BackupTablespace[] = [];
  readonly archives: (BackupArchive & { bytes: number })[] = [];
  readonly progress: number[] = [];
  /** By archive and name. */
  readonly members = new Map<string, TarMember>();
  readonly contents = new Map<string, Buffer>();
  #manifest: Buffer[] = [];
  #content: Buffer[] | undefined;
  #tar: TarReader | undefined;

  onStart(start: BackupPosition, tablespaces: readonly BackupTablespace[]): void {
    this.start = start;
    this.tablespaces = tablespaces;
  }
  onArchive(archive: BackupArchive): void {
    this.#tar?.end();
    this.archives.push({ ...archive, bytes: 0 });
    const prefix = archive.oid === undefined ? '' : `pg_tblspc/${archive.oid}/`;
    this.#tar = new TarReader({
      member: (member) => {
        this.members.set(prefix + member.name, member);
        this.#content = member.size < 20_000 ? [] : undefined;
      },
      content: (piece) => this.#content?.push(Buffer.from(piece)),
      done: (member) =>
        this.#content && this.contents.set(prefix + member.name, Buffer.concat(this.#content)),
    });
  }
  onData(chunk: Uint8Array): void {
    (this.archives.at(-1) as { bytes: number }).bytes += chunk.length;
    this.#tar?.feed(chunk);
  }
  onManifest(chunk: Uint8Array): void {
    this.#manifest.push(Buffer.from(chunk));
  }
  onProgress(bytes: number): void {
    this.progress.push(bytes);
  }
  get manifest() {
    this.#tar?.end();
    return parseManifest(Buffer.concat(this.#manifest));
  }
  get label(): BackupLabel {
    return parseBackupLabel(this.contents.get('backup_label') as Buffer);
  }
}

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
