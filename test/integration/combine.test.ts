import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { openBackupArea } from '../../src/archive/backups/area.js';
import { openChain } from '../../src/archive/combine/chain.js';
import { openCombined } from '../../src/archive/combine/file.js';
import { FrameCache } from '../../src/archive/combine/frames.js';
import { planChain } from '../../src/archive/combine/plan.js';
import { mergeBackup } from '../../src/backup/merge.js';
import type { TakenBackup } from '../../src/backup/options.js';
import { restoreBackup } from '../../src/restore/restore.js';
import { summarizingServer, takeChain } from '../support/backup-chain.js';
import { disposer } from '../support/cleanup.js';
import { MAJORS, type PostgresServer } from '../support/postgres.js';
import { archiveDirectory } from '../support/receiving.js';
import { relationDifferences } from '../support/relation-pages.js';
import { readsEveryPage } from '../support/restoring.js';
import { giveToServer, serverUser } from '../support/scratch.js';
import { backupOf, extractBackup, manifestDifferences } from '../support/taken-backup.js';
import { waitFor } from '../support/wait.js';

vi.setConfig({ testTimeout: 600_000 });

const keep = disposer();
const NEW = MAJORS.filter((major) => major >= 17);

/** Rows of all tables, by sequential and by index-only scans. */
async function digests(server: PostgresServer): Promise<string[]> {
  const found: string[] = [];
  for (const database of ['postgres', 'later', 'copied']) {
    const client = await server.client({ database });
    const { rows } = await client.query(
      "SELECT relname AS name FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1",
    );
    for (const { name } of rows as { name: string }[]) {
      for (const [seq, index] of [
        ['on', 'off'],
        ['off', 'on'],
      ]) {
        await client.query(
          `SET enable_seqscan = ${seq}; SET enable_indexonlyscan = ${index}; SET enable_bitmapscan = off`,
        );
        const sum = `SELECT count(*) || ' ' || coalesce(sum(hashint4(i)::bigint), 0) AS d FROM "${name}"`;
        const plan = await client.query(`EXPLAIN ${sum}`);
        const text = JSON.stringify(plan.rows);
        expect(text).toContain(index === 'on' ? 'Index Only Scan' : 'Seq Scan');
        const { rows } = await client.query(sum);
        found.push(`${database} ${name} ${index}: ${(rows as { d: string }[])[0]?.d}`);
      }
    }
    await client.end();
  }
  return found;
}

async function table(server: PostgresServer, name: string, rows: number): Promise<void> {
  await server.sql(`CREATE TABLE ${name} AS SELECT i, repeat('x', 200) AS t
    FROM generate_series(1, ${rows}) i`);
  await server.sql(`CREATE INDEX ON ${name} (i)`);
  await server.sql(`VACUUM (FREEZE, ANALYZE) ${name}`);
}

async function tablespace(server: PostgresServer, name: string): Promise<void> {
  const dir = join(server.dir, name);
  mkdirSync(dir);
  giveToServer(dir);
  await server.sql(`CREATE TABLESPACE ${name} LOCATION '${dir}'`);
}

/** What a chain of six goes through. */
function changes(server: PostgresServer): (() => Promise<unknown>)[] {
  const sql = async (...statements: string[]) => {
    for (const statement of statements) await server.sql(statement);
  };
  return [
    // Growth.
    () =>
      sql(
        "INSERT INTO grown SELECT i, repeat('y', 200) FROM generate_series(8001, 10500) i",
        "UPDATE grown SET t = 'z' WHERE i % 400 = 0",
        'UPDATE moved SET i = -i WHERE i < 50',
      ),
    // Truncation, and what comes after it.
    () =>
      sql(
        'DELETE FROM cut WHERE i > 2000',
        'VACUUM cut',
        "INSERT INTO cut SELECT i, repeat('w', 200) FROM generate_series(8001, 8100) i",
        'TRUNCATE emptied',
      ),
    // The same name, and another file.
    async () => {
      await sql('DROP TABLE dropped', 'VACUUM FULL rewritten', 'VACUUM (FREEZE) cut');
      await table(server, 'dropped', 2000);
      await sql("INSERT INTO emptied SELECT i, 'e' FROM generate_series(1, 300) i");
    },
    // A new database, made either way.
    async () => {
      await sql(
        'CREATE DATABASE later STRATEGY wal_log',
        'CREATE DATABASE copied TEMPLATE later STRATEGY file_copy',
      );
      const client = await server.client({ database: 'later' });
      await client.query('CREATE TABLE t AS SELECT generate_series(1, 5000) i');
      await client.query('CREATE INDEX ON t (i)');
      await client.query('VACUUM t');
      await client.end();
    },
    // Tablespaces.
    async () => {
      await tablespace(server, 'second');
      await sql(
        'ALTER TABLE moved SET TABLESPACE second',
        'UPDATE here SET i = -i WHERE i < 20',
        'SELECT * FROM frozen WHERE i < 100 FOR UPDATE',
      );
    },
    // What the map of a vacuumed table says of these rows is not in the WAL summaries.
    () => sql('DELETE FROM visible WHERE i % 20 = 0', 'DELETE FROM here WHERE i > 4500'),
  ];
}

async function prepared(major: (typeof NEW)[0]): Promise<PostgresServer> {
  const server = keep(
    await summarizingServer(major, {
      initdbArgs: ['--data-checksums'],
      settings: { autovacuum: 'off', allow_in_place_tablespaces: 'on' },
    }),
  );
  await tablespace(server, 'first');
  for (const name of ['grown', 'cut', 'emptied', 'dropped', 'rewritten', 'frozen', 'visible']) {
    await table(server, name, 8000);
  }
  await server.sql('SET default_tablespace = first; CREATE TABLE moved (i int, t text)');
  await server.sql("INSERT INTO moved SELECT i, 'm' FROM generate_series(1, 5000) i");
  await server.sql('CREATE INDEX ON moved (i)');
  const client = await server.client();
  await client.query("CREATE TABLESPACE inside LOCATION ''");
  await client.end();
  await server.sql('CREATE TABLE here TABLESPACE inside AS SELECT generate_series(1, 5000) i');
  await server.sql('CREATE INDEX ON here (i) TABLESPACE inside');
  await server.sql('VACUUM (FREEZE) here');
  await server.sql('VACUUM (FREEZE) moved');
  return server;
}

/** Not started yet. */
async function restored(server: PostgresServer, archive: string, id: string) {
  const { uid, gid } = serverUser;
  return keep(
    await server.createRestored(async (dataDir) => {
      await restoreBackup({
        ...{ places: [archive], dataDir, backup: id, restoreCommand: 'false', jobs: 1 },
        tablespaceDir: join(dirname(dataDir), 'spaces'),
        ...(uid === undefined ? {} : { owner: `${uid}:${gid}` }),
      });
    }),
  );
}

async function recovered(server: PostgresServer): Promise<void> {
  await server.start();
  await waitFor(async () => (await server.sql('SELECT pg_is_in_recovery() AS r'))[0]?.r === false, {
    what: 'the end of recovery',
  });
}

/** As it was, without what makes a map true. */
async function withoutRepair(archive: string, chain: readonly TakenBackup[], path: string) {
  const area = await openBackupArea(archive, {});
  const opened = await openChain(chain.map(({ record }) => ({ record, area })));
  const frames = new FrameCache(opened.readers);
  const file = (await planChain(opened)).find((one) => one.path === path);
  const { write } = await openCombined({ ...file!, map: undefined }, { ...opened, frames });
  const pieces: Buffer[] = [];
  await write((bytes) => void pieces.push(Buffer.from(bytes)));
  await area.close();
  return Buffer.concat(pieces);
}

test.each(NEW)(
  'a chain of six incrementals of PostgreSQL %i is what the server was',
  async (major) => {
    const server = await prepared(major);
    const archive = archiveDirectory();
    const chain = await takeChain(server, archive, changes(server), { wal: 'include' });
    await server.stop();

    const { id } = chain.at(-1) as TakenBackup;
    const merged = await mergeBackup({ place: archive, id });
    expect(merged.from).toEqual(chain.map((one) => one.id));
    expect(merged.record).not.toHaveProperty('parent');
    const again = await restored(server, archive, merged.id);
    expect(relationDifferences(server.dataDir, again.dataDir).differences).toEqual([]);
    // With tar alone, and by the manifest that it got.
    const manifest = readFileSync(join(archive, 'backups', merged.id, 'backup_manifest'));
    const wrong = manifestDifferences(extractBackup(archive, merged), manifest);
    expect(wrong.filter((path) => !/^pg_wal\/[0-9A-F]{24}$/.test(path))).toEqual([]);
    const whole = await restored(server, archive, id);
    const { differences, pages } = relationDifferences(server.dataDir, whole.dataDir);
    expect(differences).toEqual([]);
    expect(pages).toBeGreaterThan(2500);
    expect(readFileSync(join(whole.dataDir, 'backup_label'), 'latin1')).not.toMatch(/INCREMENTAL/);
    // Only now: who reads tables changes pages, and has that logged.
    await server.start();
    const expected = await digests(server);
    // The server itself takes it for what an incremental backup is based on.
    const based = { wal: 'include', incremental: 'last', fallback: false } as const;
    expect((await backupOf(server, archive, based)).record.parent).toBe(merged.id);
    const rows = await server.sql("SELECT pg_relation_filepath('visible') AS path");
    const { path } = rows[0] as { path: string };
    await recovered(whole);
    expect(await digests(whole)).toEqual(expected);
    await readsEveryPage(whole);
    await whole.destroy();
    if (major !== NEW.at(-1)) return;

    // What the server itself says of the map, combined as it is: deleted rows come back.
    const stale = await restored(server, archive, id);
    const map = join(stale.dataDir, `${path}_vm`);
    const asIs = await withoutRepair(archive, chain, `${path}_vm`);
    expect(asIs.equals(readFileSync(map))).toBe(false);
    writeFileSync(map, asIs);
    await recovered(stale);
    const rowsBack = (await digests(stale)).filter((line) => !expected.includes(line));
    expect(rowsBack).toEqual([expect.stringMatching(/^postgres visible on: 8000 /)]);
  },
);
