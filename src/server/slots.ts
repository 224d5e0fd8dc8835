import type { ReplicationConnection } from '../connection/connection.js';
import { type Lsn, parseLsn } from '../lsn.js';
import { sqlRows } from './sql.js';

/** A replication slot as pg_replication_slots shows it. */
export interface SlotInfo {
  name: string;
  type: 'physical' | 'logical' | (string & {});
  active: boolean;
  /** Process of the walsender that uses it. */
  activePid: number | undefined;
  temporary: boolean;
  /** Oldest WAL that it keeps; undefined before its first use, and of a slot that is lost. */
  restartLsn: Lsn | undefined;
  /** Bytes of WAL between `restartLsn` and the server's position. */
  retainedBytes: bigint | undefined;
  /** `reserved`, `extended`, `unreserved` or `lost`; undefined where nothing is reserved. */
  walStatus: string | undefined;
  /** Bytes that may still be written before WAL it needs is removed; undefined: no limit. */
  safeWalSize: bigint | undefined;
  /** Why it is of no more use; undefined while it is. */
  invalidation: string | undefined;
}

const PG10 = 100_000;
const PG13 = 130_000;
const PG16 = 160_000;
const PG17 = 170_000;

/** All slots of a server, by name. Wants an ordinary connection; any user may ask. */
export async function listSlots(connection: ReplicationConnection): Promise<SlotInfo[]> {
  const version = connection.serverVersion;
  const since = (from: number, expression: string, otherwise = 'NULL') =>
    version >= from ? expression : otherwise;
  const lost = since(PG13, `CASE WHEN wal_status = 'lost' THEN 'wal_removed' END`);
  // Before 17 only a conflict with recovery is told apart from removed WAL.
  const invalidation = since(
    PG17,
    'invalidation_reason',
    since(PG16, `CASE WHEN conflicting THEN 'conflict' ELSE ${lost} END`, lost),
  );
  const rows = await sqlRows(
    connection,
    `SELECT slot_name, slot_type, active, active_pid, ${since(PG10, 'temporary', 'false')} AS temporary,
            restart_lsn, pg_wal_lsn_diff(
              CASE WHEN pg_is_in_recovery()
                THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
                ELSE pg_current_wal_flush_lsn() END, restart_lsn) AS retained,
            ${since(PG13, 'wal_status')} AS wal_status,
            ${since(PG13, 'safe_wal_size')} AS safe_wal_size,
            ${invalidation} AS invalidation
       FROM pg_replication_slots ORDER BY slot_name`,
  );
  return rows.map((row) => ({
    name: row.slot_name ?? '',
    type: row.slot_type ?? '',
    active: row.active === 't',
    activePid: row.active_pid ? Number(row.active_pid) : undefined,
    temporary: row.temporary === 't',
    restartLsn: row.restart_lsn ? parseLsn(row.restart_lsn) : undefined,
    retainedBytes: bytes(row.retained),
    walStatus: row.wal_status ?? undefined,
    safeWalSize: bytes(row.safe_wal_size),
    invalidation: row.invalidation ?? undefined,
  }));
}

/** Behind its own position a slot retains nothing: no negative numbers. */
function bytes(text: string | null | undefined): bigint | undefined {
  if (!text) return undefined;
  const value = BigInt(text.split('.')[0] as string);
  return value > 0n ? value : 0n;
}
