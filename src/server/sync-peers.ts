import { connect } from '../connection/connect.js';
import type { ConnectionSettings } from '../connection/conninfo/settings.js';
import type { SyncStandbyNames } from '../protocol/sync-standby-names.js';
import { secureSearchPath, sqlRows } from './sql.js';
import type { ReceiverWarning } from './warning.js';

/** Milliseconds to connect, and to answer: streaming must not wait long for what is only advice. */
const TIMEOUT = 3000;

/**
 * The application_names of the standbys that are connected, by SQL over a short-lived connection
 * of its own. Undefined if the role may not connect so: then it is not known.
 */
export async function connectedStandbys(
  settings: ConnectionSettings,
  signal: AbortSignal,
): Promise<string[] | undefined> {
  const own = { ...settings, database: 'postgres', connectTimeout: TIMEOUT };
  try {
    const connection = await connect(own, { signal, replication: 'off' });
    // Destroyed, its queries fail.
    const timer = setTimeout(() => connection.destroy(), TIMEOUT);
    try {
      await secureSearchPath(connection);
      const rows = await sqlRows(connection, 'SELECT application_name FROM pg_stat_replication');
      return rows.map((row) => row.application_name ?? '');
    } finally {
      clearTimeout(timer);
      await connection.close();
    }
  } catch {
    // Most archivers may only replicate; then nobody can tell, which is no reason to stop.
    return undefined;
  }
}

/** What to say of the other standbys that `synchronous_standby_names` lists. Pure. */
export function peerWarnings(
  setting: SyncStandbyNames,
  applicationName: string,
  connected: readonly string[] | undefined,
): ReceiverWarning[] {
  const own = applicationName.toLowerCase();
  const any = setting.names.includes('*');
  const listed = setting.names.map((n) => n.toLowerCase()).filter((n) => n !== own);
  if (listed.length === 0) return [];
  if (connected === undefined) {
    return [
      {
        code: 'WK_SYNC_UNKNOWN',
        message:
          'whether another standby of synchronous_standby_names is connected is not known: this role may not ask',
        hint: 'With no other one every commit waits while this receiver is away.',
      },
    ];
  }
  const others = connected.map((n) => n.toLowerCase()).filter((n) => n !== own);
  if (others.some((n) => any || listed.includes(n))) return [];
  return [
    {
      code: 'WK_SYNC_ALONE',
      message:
        'no other standby of synchronous_standby_names is connected: every commit waits while this receiver is away',
      hint: 'Bring another one up, or expect commits to wait during a restart of this one.',
    },
  ];
}
