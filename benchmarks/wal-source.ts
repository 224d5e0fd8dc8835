import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { segmentFileName, segmentOf } from '../src/wal/file-name.js';
import { PostgresServer, type ServerOptions } from '../test/support/postgres.js';

const MB = 1024 * 1024;

/** A PostgreSQL 15 with 16 MB segments that stores them with cp, and a table to be updated. */
export async function createSource(
  rows: number,
  settings: ServerOptions['settings'] = {},
): Promise<PostgresServer> {
  const server = await PostgresServer.create({
    major: 15,
    segmentSizeMb: 16,
    archive: true,
    settings: {
      shared_buffers: '512MB',
      // No checkpoint on the way: how many full-page images there are is up to the settings.
      max_wal_size: '64GB',
      checkpoint_timeout: '1h',
      ...settings,
    },
  });
  await server.sql(
    'CREATE TABLE bench (id int PRIMARY KEY, n int NOT NULL, k int NOT NULL, v text NOT NULL)',
  );
  await server.sql(
    `INSERT INTO bench SELECT i, 0, (random() * 1e9)::int, md5(i::text)
       FROM generate_series(1, ${rows}) i`,
  );
  await server.sql('CREATE INDEX ON bench (k)');
  await server.sql('CHECKPOINT');
  return server;
}

/**
 * Updates rows at random, with a new entry in both indexes each, until there are so many whole
 * segments; gives the names of them all, which are in the archive then.
 */
export async function updateAtRandom(
  server: PostgresServer,
  rows: number,
  segments: number,
): Promise<string[]> {
  const size = server.segmentSize;
  await server.switchWal();
  const first = segmentOf(await server.currentLsn(), size);
  const client = await server.client();
  while (segmentOf(await server.currentLsn(), size) < first + BigInt(segments)) {
    await client.query(
      `UPDATE bench SET n = n + 1, k = (random() * 1e9)::int WHERE id IN
         (SELECT 1 + (random() * ${rows - 1})::int FROM generate_series(1, 20000))`,
    );
  }
  await client.end();
  await server.waitArchived(await server.switchWal(), 600_000);
  return Array.from({ length: segments }, (_, i) => segmentFileName(1, first + BigInt(i), size));
}

/** What is in the table, so that a lost or doubled update shows. */
export async function tableDigest(server: PostgresServer): Promise<string> {
  const [row] = await server.sql<{ digest: string }>(
    `SELECT count(*) || ' rows, ' || sum(n) || ' updates, ' || sum(k::bigint) AS digest FROM bench`,
  );
  return row?.digest as string;
}

/** The segments as the server stored them, to compare with. @throws if one is not whole */
export function originals(server: PostgresServer, names: readonly string[]): Map<string, Buffer> {
  return new Map(
    names.map((name) => {
      const bytes = readFileSync(join(server.archiveDir, name));
      if (bytes.length !== 16 * MB) throw new Error(`${name} has ${bytes.length} bytes`);
      return [name, bytes];
    }),
  );
}

/** Fills a new table `t` until the server's WAL has reached `end`: small records, little else. */
export async function insertRows(server: PostgresServer, end: bigint): Promise<void> {
  await server.sql('CREATE TABLE t (i bigint PRIMARY KEY, v text)');
  for (let rows = 0; (await server.currentLsn()) <= end; rows += 200_000) {
    await server.sql(
      `INSERT INTO t SELECT i, md5(i::text) FROM generate_series(${rows}, ${rows + 199_999}) i`,
    );
  }
}
