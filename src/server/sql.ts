import type { ReplicationConnection } from '../connection/connection.js';

/** One row of a query, by column name; values as the server prints them. */
export type SqlRow = Readonly<Record<string, string | null>>;

/** Runs a query on an ordinary connection and gives its rows. */
export async function sqlRows(connection: ReplicationConnection, sql: string): Promise<SqlRow[]> {
  const { fields, rows } = await connection.query(sql);
  return rows.map((row) =>
    Object.fromEntries(
      fields.map(({ name }, i): [string, string | null] => [
        name,
        row[i]?.toString('utf8') ?? null,
      ]),
    ),
  );
}

/**
 * Takes schemas of others out of the search path: a function of the same name there must not be
 * called in the place of the server's (libpq's ALWAYS_SECURE_SEARCH_PATH_SQL).
 */
export async function secureSearchPath(connection: ReplicationConnection): Promise<void> {
  await connection.query("SELECT pg_catalog.set_config('search_path', '', false)");
}
