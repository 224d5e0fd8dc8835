import type { Client } from 'pg';
import type { PostgresServer } from './postgres.js';

/** What was there after a commit, as it was asked for right behind it. */
export interface Moment {
  n: number;
  /** Of the commit, as recovery_target_xid takes it. */
  xid: string;
  /** Behind all of its records: the next one begins here. */
  lsn: string;
  /** At or behind its commit time, and before the next one's. */
  time: string;
  /** Of a restore point that was made right behind it. */
  name: string | undefined;
  timeline: number;
  digest: string;
}

export const digestOf = (tables: readonly string[]) => {
  const parts = tables.map(
    (table) =>
      `(SELECT count(*) || ':' || md5(coalesce(string_agg(r::text, '' ORDER BY id), '')) FROM "${table}" r)`,
  );
  return parts.join(" || ' ' || ");
};

/**
 * Rows in several tables that one session inserts, changes and deletes, a commit after the other,
 * with a record of what they were after each: the oracle of what a recovery to there must give.
 */
export class RecordedRows {
  readonly moments: Moment[] = [];
  /** A table in each tablespace; undefined for the default one. */
  readonly tables: readonly string[];
  readonly #spaces: readonly (string | undefined)[];

  constructor(spaces: readonly (string | undefined)[]) {
    this.#spaces = spaces;
    this.tables = spaces.map((space) => `rows of ${space ?? 'default'}`);
  }

  get last(): Moment {
    return this.moments.at(-1) as Moment;
  }

  async prepare(server: PostgresServer): Promise<void> {
    for (const [i, space] of this.#spaces.entries()) {
      const where = space === undefined ? '' : `TABLESPACE "${space}"`;
      const index = space === undefined ? '' : `USING INDEX ${where}`;
      await server.sql(`CREATE TABLE "${this.tables[i]}" (
        id int PRIMARY KEY ${index}, note text, touched int) ${where}`);
    }
  }

  /** Commits until it is told to stop, or `most` times. */
  async commits(
    server: PostgresServer,
    { timeline = 1, most = Number.POSITIVE_INFINITY, signal }: CommitOptions = {},
  ): Promise<void> {
    const client = await server.client();
    try {
      for (let i = 0; i < most && !signal?.aborted; i++) await this.#commit(client, timeline);
    } finally {
      await client.end().catch(() => {});
    }
  }

  async #commit(client: Client, timeline: number): Promise<void> {
    const n = (this.moments.at(-1)?.n ?? 0) + 1;
    await client.query('BEGIN');
    for (const table of this.tables) {
      await client.query(
        `INSERT INTO "${table}" SELECT $1::int * 4 + k, repeat(md5(random()::text), 8), 0
           FROM generate_series(0, 3) k`,
        [n],
      );
      await client.query(`UPDATE "${table}" SET touched = touched + $1 WHERE id % 8 = $1 % 8`, [n]);
      await client.query(`DELETE FROM "${table}" WHERE id = $1`, [(n - 2) * 4]);
    }
    const { rows } = await client.query('SELECT pg_current_xact_id()::xid::text AS xid');
    await client.query('COMMIT');
    // What follows is not flushed with it, and a killed server has not got it.
    const behind = await client.query('SELECT pg_current_wal_insert_lsn()::text AS lsn');
    // One that did not commit, with its xid, lies between any two.
    await client.query('BEGIN');
    await client.query(`DELETE FROM "${this.tables[0]}"`);
    await client.query('ROLLBACK');
    const name = n % 3 === 0 ? `point ${n} é` : undefined;
    if (name !== undefined) await client.query('SELECT pg_create_restore_point($1)', [name]);
    const found = await client.query(
      `SELECT clock_timestamp()::text AS time, ${digestOf(this.tables)} AS digest`,
    );
    const { lsn } = behind.rows[0];
    this.moments.push({ n, name, timeline, lsn, xid: rows[0].xid, ...found.rows[0] });
  }

  async digest(server: PostgresServer): Promise<string> {
    const [row] = await server.sql<{ digest: string }>(`SELECT ${digestOf(this.tables)} AS digest`);
    return row?.digest as string;
  }
}

export interface CommitOptions {
  timeline?: number;
  most?: number;
  signal?: AbortSignal;
}
