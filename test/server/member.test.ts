import { expect, test } from 'vitest';
import { resolveSettings } from '../../src/connection/conninfo/resolve.js';
import { type Lsn, toLsn } from '../../src/lsn.js';
import { MemberSession } from '../../src/server/member.js';
import { decideMember } from '../../src/server/member-slot.js';
import { disposer } from '../support/cleanup.js';
import { type MemberFacts, serveMember } from '../support/scripted-member.js';
import { ScriptedServer } from '../support/scripted-server.js';

const keep = disposer();
const MB = 1024n * 1024n;
const at = (n: number): Lsn => toLsn(BigInt(n) * MB);
const FORK = at(4);
const STANDBY: MemberFacts = { timeline: 1, standby: true, reached: FORK, slot: at(2) };
const PRIMARY: MemberFacts = {
  ...STANDBY,
  timeline: 2,
  standby: false,
  reached: at(9),
  fork: FORK,
};

test.each([0, 1, 2, 3, 4, 5, 6])(
  'a promotion in the midst of a look, after %i answers, moves no slot over the fork',
  async (promotedAfter) => {
    let asked = 0;
    const server = keep(
      await ScriptedServer.listen(async (c) => {
        await serveMember(c, () => (asked++ < promotedAfter ? STANDBY : PRIMARY));
        c.close();
      }),
    );
    const conninfo = server.conninfo({ sslmode: 'disable', dbname: 'postgres' });
    const settings = await resolveSettings({ conninfo, fallbackApplicationName: 'x' }, {});
    const session = new MemberSession(settings, 's');
    const seen = await session.observe();
    await session.close();
    expect(asked).toBe(seen.timeline === 1 ? 5 : 6);
    // More than the member had when it was promoted.
    const archived = { systemId: 7n, durable: { lsn: at(8), timeline: 1 } };
    const { action } = decideMember('s', seen, archived, 'walkeep');
    expect(action).toEqual({ kind: 'advance', to: FORK });
  },
);
