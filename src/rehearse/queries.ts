import type { ReplicationConnection } from '../connection/connection.js';
import { ServerError } from '../errors.js';
import { secureSearchPath, sqlRows } from '../server/sql.js';
import type {
  RehearsedQuery,
  RehearsedReading,
  RehearseFinding,
  RehearseProgress,
} from './options.js';
import type { Sessions } from './session.js';

/** Bytes that are read of a table, unless all is. */
const SAMPLE = 256 * 1024 * 1024;
const BOOLEAN = 16;
/** SQLSTATEs of a machine that is too small, or of a query that was cancelled. */
const MACHINE = /^(?:53|54|57)/;

export interface LookOptions {
  sessions: Sessions;
  tables: number | 'all';
  signal: AbortSignal;
  onProgress: (progress: RehearseProgress) => void;
}

export interface Looked {
  databases: { name: string; relations: number; size: number }[];
  reading: RehearsedReading;
  findings: RehearseFinding[];
}

interface Table {
  name: string;
  kind: string;
  size: number;
  pages: number;
  catalog: boolean;
  indexed: boolean;
}

/** Tables that can be read on a standby, with what their storage has; the largest first. */
const TABLES = `SELECT c.oid::pg_catalog.regclass::text AS name, c.relkind AS kind,
    pg_catalog.pg_relation_size(c.oid) AS size,
    pg_catalog.current_setting('block_size')::bigint AS block,
    c.relnamespace = 'pg_catalog'::pg_catalog.regnamespace AS catalog,
    EXISTS (SELECT 1 FROM pg_catalog.pg_index i
      JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
      JOIN pg_catalog.pg_am m ON m.oid = x.relam
      WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL AND m.amname = 'btree')
      AS indexed
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_am a ON a.oid = c.relam
  WHERE c.relkind IN ('r', 'm', 't') AND c.relpersistence = 'p' AND a.amname = 'heap'
  ORDER BY 3 DESC, 1`;

/**
 * Connects to every database and reads the catalogs and the largest tables of each: the server looks
 * at the checksum of each page that it reads. Damage is a finding.
 * @throws ConnectionError; ServerError for what says nothing about the data; the signal's reason
 */
export async function lookAround(options: LookOptions): Promise<Looked> {
  const { sessions, tables, signal } = options;
  const first = await sessions.openAny(signal);
  let names: string[];
  let checksums: boolean;
  try {
    await secureSearchPath(first);
    const rows = await sqlRows(
      first,
      'SELECT datname FROM pg_database WHERE datallowconn AND datconnlimit <> -2 ORDER BY datname',
    );
    names = rows.map(({ datname }) => datname as string);
    checksums = (await first.show('data_checksums')) === 'on';
  } finally {
    await first.close();
  }
  const reading = { checksums, tables: 0, bytes: 0, sampled: 0, compared: 0 };
  const looked: Looked = { databases: [], reading, findings: [] };
  for (const name of names) {
    await guarded(looked, name, undefined, async () => {
      const connection = await sessions.open(name, signal);
      try {
        await lookAt(connection, name, tables, looked, options);
      } finally {
        await connection.close();
      }
    });
  }
  return looked;
}

async function lookAt(
  connection: ReplicationConnection,
  database: string,
  tables: number | 'all',
  looked: Looked,
  { signal, onProgress }: LookOptions,
): Promise<void> {
  onProgress({ kind: 'query', database, what: 'relations' });
  await secureSearchPath(connection);
  const [row] = await sqlRows(
    connection,
    `SELECT (SELECT pg_catalog.count(*) FROM pg_catalog.pg_class) AS relations,
      pg_catalog.pg_database_size(pg_catalog.current_database()) AS size`,
  );
  const { relations, size } = row ?? {};
  looked.databases.push({ name: database, relations: Number(relations), size: Number(size) });
  if (tables === 0) return;
  for (const table of chosen(await tablesOf(connection), tables)) {
    signal.throwIfAborted();
    onProgress({ kind: 'query', database, what: table.name });
    await guarded(looked, database, table.name, () =>
      readTable(connection, database, table, tables === 'all', looked, signal),
    );
  }
}

async function tablesOf(connection: ReplicationConnection): Promise<Table[]> {
  return (await sqlRows(connection, TABLES)).map((row) => ({
    ...{ name: row.name as string, kind: row.kind as string, size: Number(row.size) },
    ...{ pages: Number(row.size) / Number(row.block) },
    ...{ catalog: row.catalog === 't', indexed: row.indexed === 't' },
  }));
}

/** The catalogs, and so many of the others. */
function chosen(tables: readonly Table[], count: number | 'all'): Table[] {
  if (count === 'all') return [...tables];
  const others = tables.filter(({ catalog, size }) => !catalog && size > 0);
  return [...tables.filter(({ catalog }) => catalog), ...others.slice(0, count)];
}

async function readTable(
  connection: ReplicationConnection,
  database: string,
  { name, size, pages, indexed }: Table,
  whole: boolean,
  looked: Looked,
  signal: AbortSignal,
): Promise<void> {
  const { reading, findings } = looked;
  const isSampled = !whole && size > SAMPLE;
  const part = Math.floor((pages * SAMPLE) / Math.max(size, 1));
  const from = isSampled ? Math.floor(Math.random() * (pages - part)) : 0;
  // Of a TOAST table there is no TABLESAMPLE.
  const where = isSampled ? ` WHERE ctid >= '(${from},0)' AND ctid < '(${from + part},0)'` : '';
  // One snapshot for both counts.
  await connection.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
  try {
    await connection.query(`${SEQUENTIAL}; ${isSampled ? '' : 'SET LOCAL enable_tidscan = off'}`);
    const rows = await count(connection, `${name}${where}`, signal);
    reading.tables += 1;
    reading.bytes += isSampled ? part * (size / pages) : size;
    if (isSampled) reading.sampled += 1;
    if (isSampled || !indexed) return;
    await connection.query(BY_INDEX);
    const byIndex = await count(connection, name, signal);
    reading.compared += 1;
    if (rows === byIndex) return;
    const message = `the table has ${rows} rows, counted by an index there are ${byIndex}`;
    findings.push({ database, relation: name, message });
  } finally {
    if (!connection.closed) await connection.query('ROLLBACK');
  }
}

const SEQUENTIAL =
  'SET LOCAL enable_seqscan = on; SET LOCAL enable_indexscan = off; ' +
  'SET LOCAL enable_indexonlyscan = off; SET LOCAL enable_bitmapscan = off';
const BY_INDEX =
  'SET LOCAL enable_seqscan = off; SET LOCAL enable_indexscan = on; ' +
  'SET LOCAL enable_indexonlyscan = on; SET LOCAL enable_bitmapscan = off';

async function count(
  connection: ReplicationConnection,
  from: string,
  signal: AbortSignal,
): Promise<string> {
  const sql = `SELECT pg_catalog.count(*) FROM ONLY ${from}`;
  const { rows } = await connection.query(sql, signal);
  return rows[0]?.[0]?.toString() ?? '';
}

/** What the server says of its data is a finding, all else is not about that. */
async function guarded(
  { findings }: Looked,
  database: string,
  relation: string | undefined,
  work: () => Promise<void>,
): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof ServerError) || MACHINE.test(error.sqlstate)) throw error;
    const { sqlstate } = error;
    findings.push({ database, relation, sqlstate, message: plain(error) });
  }
}

/** Runs each query in a session of its own. @throws ConnectionError; the signal's reason */
export async function runQueries(
  queries: readonly string[],
  database: string | undefined,
  { sessions, signal, onProgress }: Omit<LookOptions, 'tables'>,
): Promise<RehearsedQuery[]> {
  const done: RehearsedQuery[] = [];
  for (const sql of queries) {
    onProgress({ kind: 'query', database: database ?? 'postgres', what: sql });
    const began = performance.now();
    const connection = await (database === undefined
      ? sessions.openAny(signal)
      : sessions.open(database, signal));
    const query: RehearsedQuery = { sql, rows: 0, first: [], duration: 0 };
    try {
      const { rows, fields } = await connection.query(sql, signal);
      query.rows = rows.length;
      query.first = (rows[0] ?? []).map((value) => value?.toString('utf8') ?? null);
      const isAnswer = rows.length === 1 && fields.length === 1 && fields[0]?.typeOid === BOOLEAN;
      if (isAnswer && query.first[0] !== 't') query.problem = 'it does not say true';
    } catch (error) {
      if (!(error instanceof ServerError) || MACHINE.test(error.sqlstate)) throw error;
      query.problem = plain(error);
    } finally {
      await connection.close();
    }
    query.duration = performance.now() - began;
    done.push(query);
  }
  return done;
}

function plain({ message }: Error): string {
  return message.replace(/^(?:.*?\b)?(?:ERROR|FATAL):\s*/s, '').trim();
}
