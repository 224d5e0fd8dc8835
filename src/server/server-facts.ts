import type { ReplicationConnection } from '../connection/connection.js';
import { ServerError } from '../errors.js';
import { type Lsn, parseLsn } from '../lsn.js';
import type { SlotPosition } from '../protocol/replication.js';
import { readServerState, type ServerState, type StoredHistories } from './server-state.js';
import { listSlots, type SlotInfo } from './slots.js';
import { type SqlRow, secureSearchPath, sqlRows } from './sql.js';

/** Settings that any session may show; those that a server lacks are undefined. */
const SETTINGS = [
  'wal_level',
  'max_wal_senders',
  'max_replication_slots',
  'max_slot_wal_keep_size',
  'idle_replication_slot_timeout',
  'wal_keep_size',
  'synchronous_standby_names',
  'synchronous_commit',
  'archive_mode',
  'archive_command',
  'archive_library',
] as const;
export type SettingName = (typeof SETTINGS)[number];

/** What a replication connection tells. */
export interface ServerFacts {
  /** As `server_version_num`. */
  version: number;
  versionText: string;
  /** Undefined where the server does not report it (before 14). */
  standby: boolean | undefined;
  state: ServerState;
  settings: Readonly<Record<SettingName, string | undefined>>;
  /** The slot asked for: `missing`, or undefined where the server has no command for it. */
  slot: SlotPosition | 'missing' | 'logical' | undefined;
}

/** Asks all that a replication connection can be asked. The slot comes first: it only grows. */
export async function readServerFacts(
  connection: ReplicationConnection,
  slot: string | undefined,
  stored: StoredHistories,
): Promise<ServerFacts> {
  const position = slot === undefined ? undefined : await readSlot(connection, slot);
  const state = await readServerState(connection, stored);
  const settings = {} as Record<SettingName, string | undefined>;
  for (const name of SETTINGS) settings[name] = await showIfAny(connection, name);
  const hot = connection.parameters.get('in_hot_standby');
  return {
    version: connection.serverVersion,
    versionText: connection.parameters.get('server_version') ?? '',
    standby: hot === undefined ? undefined : hot === 'on',
    state,
    settings,
    slot: position,
  };
}

async function readSlot(
  connection: ReplicationConnection,
  name: string,
): Promise<ServerFacts['slot']> {
  if (connection.serverVersion < 150_000) return undefined;
  try {
    return (await connection.readReplicationSlot(name)) ?? 'missing';
  } catch (e) {
    // 0A000: the command is for physical slots only.
    if (e instanceof ServerError && e.sqlstate === '0A000') return 'logical';
    throw e;
  }
}

async function showIfAny(connection: ReplicationConnection, name: string) {
  try {
    return await connection.show(name);
  } catch (e) {
    if (e instanceof ServerError && !connection.closed) return undefined;
    throw e;
  }
}

/** One walsender as pg_stat_replication shows it to us. */
export interface WalSender {
  pid: number;
  /** Undefined where the row is another user's and may not be seen. */
  applicationName: string | undefined;
  state: string | undefined;
  syncState: string | undefined;
  writeLsn: Lsn | undefined;
  flushLsn: Lsn | undefined;
  /** When the receiver sent its last reply, by its own clock, as seconds since 1970. */
  repliedAt: number | undefined;
  /** Seconds between a flush here and the news of it there; undefined while nothing is written. */
  flushLag: number | undefined;
}

/** What pg_stat_archiver says; times as seconds since 1970. */
export interface ArchiverState {
  lastArchivedAt: number | undefined;
  lastFailedWal: string | undefined;
  lastFailedAt: number | undefined;
}

/** What needs SQL. */
export interface SqlFacts {
  slots: SlotInfo[];
  walSenders: WalSender[];
  /** wal_sender_timeout in seconds, 0 for none: after half of it a silent receiver is asked. */
  walSenderTimeout: number | undefined;
  archiver: ArchiverState;
  /** Seconds that the server's clock is ahead of ours, and how exactly that is known. */
  clock: { ahead: number; within: number };
}

/** Asks over an ordinary connection. Any user may, but sees only part of other users' sessions. */
export async function readSqlFacts(connection: ReplicationConnection): Promise<SqlFacts> {
  await secureSearchPath(connection);
  const slots = await listSlots(connection);
  // PostgreSQL 12 brought it.
  const replied = connection.serverVersion >= 120_000 ? 'extract(epoch FROM reply_time)' : 'NULL';
  const senders = await sqlRows(
    connection,
    `SELECT pid, application_name, state, sync_state, write_lsn, flush_lsn,
            ${replied} AS replied, extract(epoch FROM flush_lag) AS lag FROM pg_stat_replication`,
  );
  const [timeout] = await sqlRows(
    connection,
    `SELECT setting FROM pg_settings WHERE name = 'wal_sender_timeout'`,
  );
  const [archiver] = await sqlRows(
    connection,
    `SELECT extract(epoch FROM last_archived_time) AS archived, last_failed_wal AS wal,
            extract(epoch FROM last_failed_time) AS failed FROM pg_stat_archiver`,
  );
  const asked = Date.now() / 1000;
  const [clock] = await sqlRows(connection, 'SELECT extract(epoch FROM clock_timestamp()) AS now');
  const answered = Date.now() / 1000;
  return {
    slots,
    walSenders: senders.map(walSender),
    walSenderTimeout: timeout?.setting ? Number(timeout.setting) / 1000 : undefined,
    archiver: {
      lastArchivedAt: number(archiver?.archived),
      lastFailedWal: archiver?.wal ?? undefined,
      lastFailedAt: number(archiver?.failed),
    },
    clock: {
      ahead: Number(clock?.now) - (asked + answered) / 2,
      within: (answered - asked) / 2,
    },
  };
}

function walSender(row: SqlRow): WalSender {
  return {
    pid: Number(row.pid),
    applicationName: row.state ? (row.application_name ?? '') : undefined,
    state: row.state ?? undefined,
    syncState: row.sync_state ?? undefined,
    writeLsn: row.write_lsn ? parseLsn(row.write_lsn) : undefined,
    flushLsn: row.flush_lsn ? parseLsn(row.flush_lsn) : undefined,
    repliedAt: number(row.replied),
    flushLag: number(row.lag),
  };
}

const number = (text: string | null | undefined) => (text ? Number(text) : undefined);
