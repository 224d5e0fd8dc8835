import type { Client } from 'pg';
import { type Lsn, parseLsn } from '../../src/lsn.js';
import { parseTimestamp, type TimestampTz } from '../../src/wal/records/timestamp.js';
import type { PostgresServer } from './postgres.js';

/** A commit of one row. */
export interface NumberedCommit {
  n: number;
  xid: number;
  /** Its record begins at or behind this, and before `after`. */
  before: Lsn;
  after: Lsn;
  /** As recovery compares it. */
  time: TimestampTz;
}

/** Settings that a server needs for it. */
export const NUMBERED = { track_commit_timestamp: 'on' };

/** Rows with ascending numbers, a commit each, of which time and place are known. */
export class NumberedRows {
  readonly commits: NumberedCommit[] = [];
  #next: number;

  constructor(first = 1) {
    this.#next = first;
  }

  get last(): NumberedCommit {
    return this.commits.at(-1) as NumberedCommit;
  }

  async prepare(server: PostgresServer): Promise<void> {
    await server.sql('CREATE TABLE numbered (n int, xid bigint)');
  }

  /** @param segments that are ended behind some of them */
  async add(server: PostgresServer, many: number, segments = 0): Promise<void> {
    const client = await server.client();
    try {
      for (let i = 0; i < many; i++) {
        this.commits.push(await commit(client, this.#next++));
        if (i < segments) await client.query('SELECT pg_switch_wal()');
      }
    } finally {
      await client.end();
    }
  }
}

async function commit(client: Client, n: number): Promise<NumberedCommit> {
  const lsn = async (): Promise<Lsn> =>
    parseLsn((await client.query('SELECT pg_current_wal_insert_lsn()::text AS l')).rows[0].l);
  await client.query('BEGIN');
  const inserted = await client.query(
    'INSERT INTO numbered SELECT $1, pg_current_xact_id()::xid::text::bigint RETURNING xid',
    [n],
  );
  const xid = Number(inserted.rows[0].xid);
  const before = await lsn();
  await client.query('COMMIT');
  const after = await lsn();
  const { rows } = await client.query(
    `SELECT to_char(pg_xact_commit_timestamp('${xid}'::xid) AT TIME ZONE 'UTC',
       'YYYY-MM-DD HH24:MI:SS.US"+00"') AS t`,
  );
  return { n, xid, before, after, time: parseTimestamp(rows[0].t) };
}

/** The numbers that a server has, ascending. */
export async function numbersOf(server: PostgresServer): Promise<number[]> {
  const rows = await server.sql<{ n: number }>('SELECT n FROM numbered ORDER BY n');
  return rows.map(({ n }) => n);
}
