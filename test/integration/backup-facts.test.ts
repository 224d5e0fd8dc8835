import { chmod, mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { connect } from '../../src/connection/connect.js';
import { type BackupFacts, readBackupFacts } from '../../src/server/backup-facts.js';
import { settingsFor } from '../connection/fixtures.js';
import { disposer } from '../support/cleanup.js';
import { MAJORS, type Major, PostgresServer } from '../support/postgres.js';
import { giveToServer } from '../support/scratch.js';

const keep = disposer();

/** What a role finds out, with and without a database that it may connect to. */
async function factsOf(
  server: PostgresServer,
  user: string,
  { sql = true } = {},
): Promise<BackupFacts> {
  const settings = settingsFor('127.0.0.1', server.port, { user });
  const replication = await connect(settings);
  const ordinary = sql
    ? await connect({ ...settings, database: 'postgres' }, { replication: 'off' })
    : undefined;
  try {
    return await readBackupFacts(replication, ordinary);
  } finally {
    await replication.close();
    await ordinary?.close();
  }
}

/** Its configuration lies beside its data directory, as Debian has it. */
async function serverWithConfiguration(major: Major): Promise<PostgresServer> {
  const server = keep(
    await PostgresServer.create({ major, initdbArgs: ['--data-checksums'], tls: true }),
  );
  await server.sql('ALTER SYSTEM SET allow_in_place_tablespaces = on');
  await server.configure({});
  await server.sql('CREATE TABLESPACE "in place" LOCATION \'\'');
  const outside = join(server.dir, 'space');
  await mkdir(outside);
  giveToServer(outside);
  await server.sql(`CREATE TABLESPACE outside LOCATION '${outside}'`);
  await server.sql('CREATE ROLE replicator LOGIN REPLICATION');
  await server.sql('CREATE ROLE monitor LOGIN REPLICATION');
  await server.sql('GRANT pg_read_all_settings TO monitor');
  await server.stop();
  const etc = join(server.dir, "etc 'x'");
  const confd = join(etc, 'conf.d');
  await mkdir(confd, { recursive: true });
  for (const name of ['pg_hba.conf', 'pg_ident.conf']) {
    await rename(join(server.dataDir, name), join(etc, name));
  }
  await writeFile(join(etc, 'users'), 'nobody\n');
  const hba = await readFile(join(etc, 'pg_hba.conf'), 'utf8');
  await writeFile(join(etc, 'pg_hba.conf'), `${hba}\nlocal all @users trust\n`);
  await writeFile(join(confd, 'comments.conf'), '# nothing is set here, ü\n');
  await writeFile(join(confd, 'settings.conf'), "wal_keep_size = '32MB'\n");
  await writeFile(join(confd, 'ignored.txt'), 'x');
  for (const path of [etc, confd]) await chmod(path, 0o755);
  const quoted = (path: string) => `'${path.replaceAll("'", "''")}'`;
  await server.append(
    'walkeep.conf',
    [
      `hba_file = ${quoted(join(etc, 'pg_hba.conf'))}`,
      `ident_file = ${quoted(join(etc, 'pg_ident.conf'))}`,
      `include_dir = ${quoted(confd)}`,
      `include_if_exists = ${quoted(join(etc, 'never.conf'))}`,
      'full_page_writes = off',
      ...(major >= 17 ? ['summarize_wal = on'] : []),
    ].join('\n'),
  );
  await server.start();
  return server;
}

test.each(MAJORS)('what a superuser finds out about %i', async (major) => {
  const server = await serverWithConfiguration(major);
  const facts = await factsOf(server, 'postgres');
  const etc = join(server.dir, "etc 'x'");
  expect(facts).toMatchObject({
    standby: false,
    dataChecksums: true,
    fullPageWrites: false,
    summarizeWal: major >= 17 ? true : undefined,
    segmentSize: 1024 * 1024,
    walBlockSize: 8192,
    dataDirectory: server.dataDir,
    limits: {
      max_connections: 30,
      max_worker_processes: 8,
      max_wal_senders: 10,
      max_prepared_transactions: 10,
      max_locks_per_transaction: 64,
    },
    inPlaceTablespaces: [{ name: 'in place' }],
    warnings: [],
  });
  expect(Math.floor(facts.version / 10000)).toBe(major);
  expect(facts.configuration.complete).toBe(true);
  const found = (facts.configuration.files ?? []).map(({ path, kind, content }) => ({
    path: path.slice(etc.length + 1),
    ...{ kind, content: content?.toString().slice(-30) },
  }));
  expect(found).toEqual([
    { path: 'conf.d', kind: 'directory', content: undefined },
    { path: 'conf.d/comments.conf', kind: 'settings', content: '# nothing is set here, ü\n' },
    { path: 'conf.d/settings.conf', kind: 'settings', content: "wal_keep_size = '32MB'\n" },
    {
      path: 'pg_hba.conf',
      kind: 'authentication',
      content: expect.stringMatching(/@users trust\n$/),
    },
    { path: 'pg_ident.conf', kind: 'authentication', content: expect.any(String) },
    { path: 'users', kind: 'authentication', content: 'nobody\n' },
  ]);
});

test.each(MAJORS)('what a role that may only replicate finds out about %i', async (major) => {
  const server = await serverWithConfiguration(major);
  for (const sql of [true, false]) {
    const facts = await factsOf(server, 'replicator', { sql });
    expect(facts).toMatchObject({
      standby: false,
      dataChecksums: true,
      segmentSize: 1024 * 1024,
      walBlockSize: 8192,
      limits: { max_connections: 30 },
    });
    expect(facts.dataDirectory).toBeUndefined();
    expect(facts.configuration).toEqual({ files: undefined, complete: false });
    expect(facts.inPlaceTablespaces?.map(({ name }) => name)).toEqual(
      sql ? ['in place'] : undefined,
    );
    const codes = facts.warnings.map(({ code }) => code);
    const unknown = !sql && major < 16 ? ['WK_TABLESPACES_UNKNOWN'] : [];
    expect(codes).toEqual([...unknown, 'WK_CONFIGURATION_UNREAD']);
  }
});

test.each(MAJORS)('what a role that may read settings and no files says of %i', async (major) => {
  const server = await serverWithConfiguration(major);
  const etc = join(server.dir, "etc 'x'");
  const facts = await factsOf(server, 'monitor');
  expect(facts.dataDirectory).toBe(server.dataDir);
  expect(facts.configuration.complete).toBe(false);
  const names = ['conf.d/settings.conf', 'pg_hba.conf', 'pg_ident.conf'];
  expect(facts.configuration.files?.map(({ path }) => path)).toEqual(
    names.map((name) => join(etc, name)),
  );
  expect(facts.configuration.files?.every(({ content }) => content === undefined)).toBe(true);
  expect(facts.warnings).toHaveLength(1);
  for (const name of names) expect(facts.warnings[0]?.message).toContain(`/${name}"`);

  // With the rights that the hint names it reads all.
  await server.sql('GRANT pg_read_server_files TO monitor');
  await server.sql(
    'GRANT EXECUTE ON FUNCTION pg_read_binary_file(text, bigint, bigint) TO monitor',
  );
  await server.sql('GRANT EXECUTE ON FUNCTION pg_ls_dir(text) TO monitor');
  const more = await factsOf(server, 'monitor');
  expect(more.configuration.complete).toBe(true);
  expect(more.configuration.files).toHaveLength(6);
  expect(more.warnings).toEqual([]);
});

test('a standby is told from a primary, and TLS files outside are named', async () => {
  const primary = keep(await PostgresServer.create({ major: 15, tls: true }));
  const standby = keep(await primary.createStandby());
  expect((await factsOf(standby, 'postgres')).standby).toBe(true);
  expect((await factsOf(standby, 'postgres', { sql: false })).standby).toBe(true);
  await primary.configure({ ssl_ca_file: (primary.ca as { cert: string }).cert });
  const { configuration } = await factsOf(primary, 'postgres');
  expect(configuration).toEqual({
    files: [{ path: primary.ca?.cert, kind: 'tls', content: undefined }],
    complete: true,
  });
});
