import { expect, test } from 'vitest';
import { resolveSettings } from '../../src/connection/conninfo/resolve.js';
import { formatLsn, type Lsn, toLsn } from '../../src/lsn.js';
import { MemberSession } from '../../src/server/member.js';
import { decideMember } from '../../src/server/member-slot.js';
import { disposer } from '../support/cleanup.js';
import { backend, ScriptedServer } from '../support/scripted-server.js';
import { waitFor } from '../support/wait.js';

const keep = disposer();
const MB = 1024n * 1024n;
const at = (n: number): Lsn => toLsn(BigInt(n) * MB);
/** Where the member has left timeline 1, what it has written since, and what is archived of it. */
const FORK = at(4);
const WRITTEN = at(9);
const ARCHIVED = at(8);
const SLOT = at(2);

/** A standby that is promoted when it has answered so many questions. */
async function member(promotedAfter: number) {
  let answered = 0;
  const answer = (query: string): Buffer | undefined => {
    const promoted = answered++ >= promotedAfter;
    if (/set_config/.test(query)) return backend.resultSet({ set_config: '' });
    if (/^IDENTIFY_SYSTEM/i.test(query)) {
      return backend.resultSet({
        systemid: '7',
        timeline: promoted ? '2' : '1',
        xlogpos: formatLsn(promoted ? WRITTEN : FORK),
        dbname: 'postgres',
      });
    }
    if (/FROM pg_replication_slots/.test(query)) {
      return backend.resultSet({
        ...{ slot_name: 's', slot_type: 'physical', active: 'f', active_pid: null },
        ...{ temporary: 'f', restart_lsn: formatLsn(SLOT), retained: '0' },
        ...{ wal_status: 'reserved', safe_wal_size: null, invalidation: null },
      });
    }
    if (/AS standby/.test(query)) {
      return backend.resultSet({
        standby: promoted ? 'f' : 't',
        reached: formatLsn(promoted ? WRITTEN : FORK),
      });
    }
    return undefined;
  };
  const histories = { 2: `1\t${formatLsn(FORK)}\tno recovery target specified\n` };
  const server = keep(
    await ScriptedServer.listen(async (c) => {
      await c.accept();
      c.serve({ segmentSizeMb: 1, histories, answer }).catch(() => {});
      await waitFor(() => c.received.some(({ type }) => type === 'X'));
      c.close();
    }),
  );
  const conninfo = server.conninfo({ sslmode: 'disable', dbname: 'postgres' });
  return resolveSettings({ conninfo, fallbackApplicationName: 'x' }, {});
}

test.each([0, 1, 2, 3, 4, 5, 6])(
  'a promotion in the midst of a look, after %i answers, moves no slot over the fork',
  async (promotedAfter) => {
    const session = new MemberSession(await member(promotedAfter), 's');
    const seen = await session.observe();
    await session.close();
    const archived = { systemId: 7n, durable: { lsn: ARCHIVED, timeline: 1 } };
    const { action } = decideMember('s', seen, archived, 'walkeep');
    expect(action).toEqual({ kind: 'advance', to: FORK });
  },
);
