import type { PostgresServer } from './postgres.js';

export interface WorkloadOptions {
  /** Transactions to commit. Default 20. */
  transactions?: number;
  /** Rows a transaction inserts. Default 50. */
  rows?: number;
  /** Bytes of the incompressible value that every transaction stores out of line. Default 20000. */
  toastBytes?: number;
  /** Every n-th transaction is prepared first, then committed. Default 0: none. */
  prepareEvery?: number;
  /** Every n-th transaction ends its segment with pg_switch_wal. Default 0: none. */
  switchEvery?: number;
  /** Bytes of one logical message a transaction, to size WAL on purpose. Default 0: none. */
  messageBytes?: number;
  /** Called after each commit that the server confirmed. */
  onCommit?: (id: number) => void;
  /** Ends the workload early, between two transactions. */
  signal?: AbortSignal;
}

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS work (
    id int NOT NULL, n int NOT NULL, note text, big bytea, PRIMARY KEY (id, n));
  ALTER TABLE work ALTER COLUMN big SET STORAGE EXTERNAL;
  CREATE INDEX IF NOT EXISTS work_note ON work (note);
  CREATE TABLE IF NOT EXISTS committed (id int PRIMARY KEY);`;

/**
 * A mixed workload on one session: heap and index inserts, TOAST, updates, deletes, and what the
 * options add. `committed` holds the id of each transaction, as `onCommit` got it. Gives the ids
 * that were confirmed; a lost session rejects.
 */
export async function workload(
  server: Pick<PostgresServer, 'client'>,
  options: WorkloadOptions = {},
): Promise<number[]> {
  const { transactions = 20, rows = 50, toastBytes = 20_000, messageBytes = 0 } = options;
  const client = await server.client();
  const confirmed: number[] = [];
  try {
    await client.query(SCHEMA);
    const found = await client.query('SELECT coalesce(max(id), 0) AS last FROM committed');
    const first = found.rows[0].last + 1;
    for (let id = first; id < first + transactions && !options.signal?.aborted; id++) {
      const every = (n: number | undefined) => n !== undefined && n > 0 && id % n === 0;
      await client.query('BEGIN');
      await client.query('INSERT INTO committed VALUES ($1)', [id]);
      await client.query(
        `INSERT INTO work SELECT $1, n, md5(random()::text) FROM generate_series(1, $2) n`,
        [id, rows],
      );
      if (toastBytes > 0) {
        await client.query(
          `UPDATE work SET big = (SELECT string_agg(decode(md5(random()::text || i), 'hex'), '')
             FROM generate_series(1, $2::int / 16) i) WHERE id = $1 AND n = 1`,
          [id, toastBytes],
        );
      }
      await client.query('UPDATE work SET note = upper(note) WHERE id = $1 AND n % 5 = 0', [id]);
      await client.query('DELETE FROM work WHERE id = $1 AND n % 7 = 0', [id - 1]);
      if (messageBytes > 0) {
        await client.query("SELECT pg_logical_emit_message(true, 'work', repeat('x', $1))", [
          messageBytes,
        ]);
      }
      if (every(options.prepareEvery)) {
        await client.query(`PREPARE TRANSACTION 'work ${id}'`);
        await client.query(`COMMIT PREPARED 'work ${id}'`);
      } else {
        await client.query('COMMIT');
      }
      confirmed.push(id);
      options.onCommit?.(id);
      if (every(options.switchEvery)) await client.query('SELECT pg_switch_wal()');
    }
    return confirmed;
  } finally {
    await client.end().catch(() => {});
  }
}
