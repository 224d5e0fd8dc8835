import type { ReplicationConnection } from './connection.js';
import type { TargetSessionAttrs } from './conninfo/settings.js';

/** What the session must be like. */
export type WantedSession = Exclude<TargetSessionAttrs, 'prefer-standby'>;

/**
 * Undefined if the session is as wanted, else libpq's words for why not. Servers from 14 on report
 * the state at login; older ones are asked.
 */
export async function checkSession(
  connection: ReplicationConnection,
  wanted: WantedSession,
): Promise<string | undefined> {
  if (wanted === 'any') return undefined;
  if (wanted === 'primary' || wanted === 'standby') {
    const standby = await inHotStandby(connection);
    if (standby === (wanted === 'standby')) return undefined;
    return standby ? 'server is in hot standby mode' : 'server is not in hot standby mode';
  }
  const readOnly =
    (await inHotStandby(connection)) ||
    (connection.parameters.get('default_transaction_read_only') ??
      (await connection.show('transaction_read_only'))) === 'on';
  if (readOnly === (wanted === 'read-only')) return undefined;
  return readOnly ? 'session is read-only' : 'session is not read-only';
}

/** A physical replication session has no SQL: before 14 the read-only state must stand for it. */
async function inHotStandby(connection: ReplicationConnection): Promise<boolean> {
  const reported = connection.parameters.get('in_hot_standby');
  return (reported ?? (await connection.show('transaction_read_only'))) === 'on';
}
