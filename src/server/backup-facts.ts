import type { ReplicationConnection } from '../connection/connection.js';
import { ServerError } from '../errors.js';
import { parseSegmentSize } from '../wal/file-name.js';
import { type OutsideConfiguration, readOutsideConfiguration } from './outside-configuration.js';
import { secureSearchPath, sqlRows } from './sql.js';
import type { ReceiverWarning } from './warning.js';

/** Settings that pg_control has, and that a server which recovers must not set lower. */
const LIMITS = [
  'max_connections',
  'max_worker_processes',
  'max_wal_senders',
  'max_prepared_transactions',
  'max_locks_per_transaction',
] as const;
export type LimitName = (typeof LIMITS)[number];

/** A tablespace without a symbolic link: its directory is `pg_tblspc/OID` itself. */
export interface InPlaceTablespace {
  oid: number;
  name: string;
}

/** What is to be known before a base backup. Undefined is what the role may not know. */
export interface BackupFacts {
  /** As `server_version_num`. */
  version: number;
  standby: boolean | undefined;
  dataChecksums: boolean | undefined;
  fullPageWrites: boolean | undefined;
  /** What incremental backups need; undefined also before 17. */
  summarizeWal: boolean | undefined;
  /** Bytes. */
  segmentSize: number | undefined;
  /** XLOG_BLCKSZ, bytes. */
  walBlockSize: number | undefined;
  dataDirectory: string | undefined;
  limits: Readonly<Record<LimitName, number | undefined>>;
  /**
   * Also those whose link cannot be read. What is not among the tablespaces of a backup either is
   * not in it: 14 and 15 leave out those that are in place and do not say so.
   */
  inPlaceTablespaces: InPlaceTablespace[] | undefined;
  configuration: OutsideConfiguration;
  /** What could not be found out, and what that means. */
  warnings: ReceiverWarning[];
}

/**
 * Asks what a base backup itself does not tell.
 * @param sql an ordinary connection to any database; undefined where the role may not have one: a
 *   backup can be taken all the same
 */
export async function readBackupFacts(
  replication: ReplicationConnection,
  sql: ReplicationConnection | undefined,
): Promise<BackupFacts> {
  if (sql) await secureSearchPath(sql);
  const show = (name: string) => allowed(replication, () => replication.show(name));
  const number = async (name: string) => {
    const text = await show(name);
    return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : undefined;
  };
  const flag = async (name: string) => {
    const text = await show(name);
    return text === 'on' ? true : text === 'off' ? false : undefined;
  };
  const limits = {} as Record<LimitName, number | undefined>;
  for (const name of LIMITS) limits[name] = await number(name);
  const segmentSize = await show('wal_segment_size');
  const dataDirectory = await show('data_directory');
  const inPlaceTablespaces = sql && (await allowed(sql, () => listInPlace(sql)));
  const configuration = await readOutsideConfiguration({ show, sql, dataDirectory });
  return {
    version: replication.serverVersion,
    standby: await isStandby(replication, sql),
    dataChecksums: await flag('data_checksums'),
    fullPageWrites: await flag('full_page_writes'),
    summarizeWal: await flag('summarize_wal'),
    segmentSize: segmentSize === undefined ? undefined : parseSegmentSize(segmentSize),
    walBlockSize: await number('wal_block_size'),
    ...{ dataDirectory, limits, inPlaceTablespaces, configuration },
    warnings: warningsOf(replication.serverVersion, inPlaceTablespaces, configuration),
  };
}

/** Undefined where the server refuses to say, or does not know what is asked for. */
async function allowed<T>(
  connection: ReplicationConnection,
  ask: () => Promise<T>,
): Promise<T | undefined> {
  try {
    return await ask();
  } catch (e) {
    if (e instanceof ServerError && !connection.closed) return undefined;
    throw e;
  }
}

/** The server reports it by itself from 14 on. */
async function isStandby(
  replication: ReplicationConnection,
  sql: ReplicationConnection | undefined,
): Promise<boolean | undefined> {
  const hot = replication.parameters.get('in_hot_standby');
  if (hot !== undefined) return hot === 'on';
  if (!sql) return undefined;
  const rows = await allowed(sql, () => sqlRows(sql, 'SELECT pg_is_in_recovery() AS standby'));
  return rows && rows[0]?.standby === 't';
}

/**
 * Those whose location is relative. Each is asked for by itself: where its link cannot be read the
 * query fails, and a base backup leaves it out with a warning.
 */
async function listInPlace(sql: ReplicationConnection): Promise<InPlaceTablespace[]> {
  // pg_default and pg_global.
  const rows = await sqlRows(
    sql,
    'SELECT oid, spcname FROM pg_tablespace WHERE oid NOT IN (1663, 1664) ORDER BY oid',
  );
  const found: InPlaceTablespace[] = [];
  for (const { oid, spcname } of rows) {
    const [row] =
      (await allowed(sql, () =>
        sqlRows(sql, `SELECT pg_tablespace_location(${Number(oid)}) AS location`),
      )) ?? [];
    if (!row?.location?.startsWith('/')) found.push({ oid: Number(oid), name: spcname ?? '' });
  }
  return found;
}

/** The first version whose base backups have tablespaces that are in place. */
const PG16 = 160_000;

function warningsOf(
  version: number,
  inPlace: readonly InPlaceTablespace[] | undefined,
  configuration: OutsideConfiguration,
): ReceiverWarning[] {
  const warnings: ReceiverWarning[] = [];
  if (inPlace === undefined && version < PG16) {
    warnings.push({
      code: 'WK_TABLESPACES_UNKNOWN',
      message:
        'whether a tablespace lies in pg_tblspc itself is not known: this version of PostgreSQL would leave it out of the backup',
      hint: 'Let this role connect to a database, for example postgres.',
    });
  }
  if (configuration.complete) return warnings;
  const unread = (configuration.files ?? []).filter(
    ({ content, kind }) => !content && kind !== 'tls',
  );
  const message =
    configuration.files === undefined
      ? 'whether configuration files lie outside the data directory is not known: they are not in the backup'
      : unread.length > 0
        ? `configuration files outside the data directory are not in the backup: ${unread.map(({ path }) => `"${path}"`).join(', ')}`
        : 'configuration files outside the data directory may not all be in the backup';
  warnings.push({
    code: 'WK_CONFIGURATION_UNREAD',
    message,
    hint: 'Keep a copy of them, or take the backup as a role that may read them (pg_read_all_settings, pg_read_server_files and EXECUTE on pg_read_binary_file and pg_ls_dir).',
  });
  return warnings;
}
