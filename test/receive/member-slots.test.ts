import { expect, test, vi } from 'vitest';
import { resolveSettings } from '../../src/connection/conninfo/resolve.js';
import { type Lsn, toLsn } from '../../src/lsn.js';
import { MemberSlots, type MemberState } from '../../src/receive/member-slots.js';
import { disposer } from '../support/cleanup.js';
import { serveMember } from '../support/scripted-member.js';
import { backend, type ScriptedConnection, ScriptedServer } from '../support/scripted-server.js';
import { waitFor } from '../support/wait.js';

const keep = disposer();
const at = (n: number): Lsn => toLsn(BigInt(n) * 1024n * 1024n);

/** Watches members, which follow the scripts. */
async function watching(
  tell: (state: MemberState) => void,
  ...scripts: ((c: ScriptedConnection, index: number) => Promise<void>)[]
) {
  const servers: ScriptedServer[] = [];
  for (const script of scripts) servers.push(keep(await ScriptedServer.listen(script)));
  const ports = servers.map(({ port }) => port).join(',');
  const hosts = servers.map(() => '127.0.0.1').join(',');
  const conninfo = `host=${hosts} port=${ports} user=postgres dbname=postgres sslmode=disable`;
  const failed: unknown[] = [];
  const slots = new MemberSlots({
    settings: await resolveSettings({ conninfo, fallbackApplicationName: 'x' }, {}),
    ...{ slot: 's', keeper: 'external', interval: 60_000 },
    archived: () => ({ systemId: 7n, durable: { lsn: at(5), timeline: 1 } }),
    tell,
    sawPrimary: () => {},
    fail: (error) => void failed.push(error),
  });
  return { slots, servers, failed };
}

const standby = () => ({ timeline: 1, standby: true, reached: at(5), slot: at(2) });

test('the end waits for every watcher, also when one has failed', async () => {
  const told: string[] = [];
  let let_go = (): void => {};
  const held = new Promise<void>((resolve) => {
    let_go = resolve;
  });
  const defect = new Error('out of patience');
  let first = '';
  const tell = vi.fn(({ member }: MemberState) => {
    told.push(member);
    if (member === first) throw defect;
  });
  let gone = false;
  const { slots, servers, failed } = await watching(
    tell,
    async (c) => {
      await serveMember(c, standby);
      c.close();
    },
    async (c) => {
      await serveMember(c, standby);
      gone = true;
      await held;
      c.close();
    },
  );
  first = `127.0.0.1:${servers[0]!.port}`;
  await waitFor(() => told.length === 2 && failed.length === 1);
  expect(failed).toEqual([defect]);
  let ended = false;
  const ending = slots.end().then(() => {
    ended = true;
  });
  // The session of the other one is being closed, and its server takes its time.
  await waitFor(() => gone);
  expect(ended).toBe(false);
  let_go();
  await ending;
  // Nor has the one that failed left its session behind.
  expect(servers.map(({ connections }) => connections.every((c) => c.ended))).toEqual([true, true]);
});

const refuses = (sqlstate: string) => async (c: ScriptedConnection) => {
  await c.accept();
  const answer = (): Buffer =>
    Buffer.concat([backend.errorResponse(sqlstate, `state ${sqlstate}`), backend.readyForQuery()]);
  await c.serve({ answer }).catch(() => {});
  c.close();
};

test('another trouble with a member is told, the same one is not', async () => {
  const told: MemberState[] = [];
  const scripts = [refuses('57P03'), refuses('57P03'), refuses('42501'), refuses('42501')];
  const { slots, servers } = await watching(
    (state) => void told.push(state),
    async (c, index) => {
      await (scripts[index]?.(c) ?? serveMember(c, standby));
      c.close();
    },
  );
  const [server] = servers as [ScriptedServer];
  for (let looks = 1; looks <= 5; looks++) {
    await server.connection(looks - 1);
    await waitFor(async () => {
      slots.lookNow();
      return server.connections.length > looks || told.at(-1)?.reason === 'covered';
    });
  }
  await slots.end();
  expect(told.map(({ reason, code }) => [reason, code])).toEqual([
    ['unreachable', '57P03'],
    ['unreachable', '42501'],
    ['covered', undefined],
  ]);
  expect(told[0]?.hint).toMatch(/^See that it runs/);
  expect(told[1]?.hint).toMatch(/^The role needs REPLICATION/);
});
