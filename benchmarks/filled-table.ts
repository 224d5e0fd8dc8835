import type { PostgresServer } from '../test/support/postgres.js';

/** Bytes that a row of the table takes on its page. */
const ROW = 145;

/**
 * A table `t` of about so many megabytes that compress as those of people do, all of it on the disk.
 * All hint bits are set: with checksums who reads first would change every page.
 * @returns rows: `i` is 1 to that
 */
export async function fillTable(
  server: PostgresServer,
  megabytes: number,
  fillfactor = 100,
): Promise<number> {
  const rows = Math.floor((megabytes * 1024 * 1024 * fillfactor) / (100 * ROW));
  await server.sql(
    `CREATE TABLE t WITH (fillfactor = ${fillfactor}) AS SELECT i, md5(i::text) AS a,
       md5((i * 7)::text) AS b, repeat(chr(65 + i % 26), 40) AS c FROM generate_series(1, ${rows}) i`,
  );
  await server.sql('VACUUM FREEZE t');
  await server.sql('CHECKPOINT');
  return rows;
}
