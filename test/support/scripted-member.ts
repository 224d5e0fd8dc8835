import { formatLsn, type Lsn } from '../../src/lsn.js';
import { backend, type ScriptedConnection } from './scripted-server.js';
import { waitFor } from './wait.js';

/** What a member answers with at one moment. */
export interface MemberFacts {
  timeline: number;
  standby: boolean;
  reached: Lsn;
  /** Where the slot "s" begins; undefined: there is none. */
  slot?: Lsn;
  /** Where timeline 1 ended. */
  fork?: Lsn;
}

/** Answers as a member of cluster 7 with segments of 1 MiB, until the client says that it goes. */
export async function serveMember(c: ScriptedConnection, facts: () => MemberFacts): Promise<void> {
  await c.accept();
  const answer = (query: string): Buffer | undefined => {
    const { timeline, standby, reached, slot, fork } = facts();
    const place = formatLsn(reached);
    if (/set_config/.test(query)) return backend.resultSet({ set_config: '' });
    if (/^IDENTIFY_SYSTEM/i.test(query)) {
      const told = { systemid: '7', timeline: String(timeline), xlogpos: place };
      return backend.resultSet({ ...told, dbname: 'postgres' });
    }
    if (/^TIMELINE_HISTORY/i.test(query) && fork !== undefined) {
      const content = `1\t${formatLsn(fork)}\tno recovery target specified\n`;
      return backend.resultSet({ filename: '00000002.history', content });
    }
    if (/FROM pg_replication_slots/.test(query)) {
      const names = [
        ...['slot_name', 'slot_type', 'active', 'active_pid', 'temporary', 'restart_lsn'],
        ...['retained', 'wal_status', 'safe_wal_size', 'invalidation'],
      ];
      const row = (restart: Lsn) => [
        ...['s', 'physical', 'f', null, 'f', formatLsn(restart)],
        ...['0', 'reserved', null, null],
      ];
      const rows = slot === undefined ? [] : [row(slot)];
      return Buffer.concat([backend.rowsOf(names, rows), backend.readyForQuery()]);
    }
    if (/AS standby/.test(query)) {
      return backend.resultSet({ standby: standby ? 't' : 'f', reached: place });
    }
    return undefined;
  };
  c.serve({ segmentSizeMb: 1, answer }).catch(() => {});
  await waitFor(() => c.received.some(({ type }) => type === 'X') || c.ended, {
    what: 'the client to go',
  });
}
