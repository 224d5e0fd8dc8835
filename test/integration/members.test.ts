import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { blocksOf } from '../docs/documents.js';
import { disposer } from '../support/cleanup.js';
import { runCli } from '../support/cli.js';
import { Members, memberCovers, underLoad } from '../support/members.js';
import { MAJORS, type Major, PostgresServer } from '../support/postgres.js';
import { archiveDirectory, holds, receive, writeWal } from '../support/receiving.js';
import { freePort } from '../support/server-config.js';
import { TcpProxy } from '../support/tcp-proxy.js';
import { waitFor } from '../support/wait.js';

const keep = disposer();
/** Failovers of each major; unset: one, of the oldest and the newest. */
const ROUNDS = Number(process.env.WALKEEP_FAILOVERS ?? 1);
const TRIED = process.env.WALKEEP_FAILOVERS ? MAJORS : MAJORS.filter((m) => m === 14 || m === 18);

/** The role that the document makes: it has to be enough. */
const ROLE = blocksOf('docs/failover.md').find(({ language }) => language === 'sql')!.text;

const OURS = '--member-slots=walkeep';

async function receiving(major: Major, ...args: string[]) {
  const members = keep(await Members.create(major));
  const directory = archiveDirectory();
  const options = ['-S', 'walkeep', '--synchronous', ...args];
  const run = keep(receive(directory, members.conninfo, options));
  await run.waitForOutput(/starting log streaming/);
  return { members, directory, run };
}

/** Until `check` says of all members that they cover. */
const allCover = (members: Members, directory: string) =>
  waitFor(
    async () => {
      const { covers, said } = await memberCovers(members, directory, OURS);
      if ([...covers.values()].filter((text) => text.startsWith('yes: ')).length === 3) return true;
      throw new Error(said);
    },
    { what: 'all members to cover', intervalMs: 200, timeoutMs: 120_000 },
  );

test.each(TRIED)(
  'no gap after failovers under load, PostgreSQL %i',
  async (major) => {
    const { members, directory, run } = await receiving(major, OURS);
    for (let round = 0; round < ROUNDS; round++) {
      const load = await underLoad(members);
      const lost = members.primary;
      const next = members.standbys[round % 2]!;
      await allCover(members, directory);
      // Away for the whole failover, and while the new primary removes what nobody asks it to keep.
      const away = round % 2 === 0;
      if (away) run.child.kill('SIGSTOP');
      const timeline = await members.failOver(next);
      await load.stop();
      const more = await underLoad(members);
      const far = (await next.currentLsn()) + 6n * 1024n * 1024n;
      await waitFor(async () => (await next.currentLsn()) > far, { what: 'more WAL' });
      if (away) run.child.kill('SIGCONT');
      await run.waitForOutput(
        new RegExp(
          `streaming at \\S+ \\(timeline ${timeline}\\)|switched to timeline ${timeline} `,
        ),
      );
      await more.stop();
      await members.rebuild(lost);
      await waitFor(
        async () => {
          const problem = await holds(directory, next, await next.currentLsn(), timeline);
          if (problem) throw new Error(problem);
          return true;
        },
        { what: 'the receiver to catch up' },
      );
      await members.followed();
    }
    expect(run.stderr).not.toMatch(/gap|WK_WAL_REMOVED|has already been removed/);
    await waitFor(
      () => {
        const problems = members.differences(directory);
        if (problems.length > 0) throw new Error(problems.join('; '));
        return true;
      },
      { what: 'the segments to be equal' },
    );
    expect(await run.stop()).toEqual({ code: 0, signal: null });
    const verify = keep(runCli(['verify', '--quick', directory]));
    expect((await verify.exit).code, verify.stdout + verify.stderr).toBeLessThan(2);
  },
  ROUNDS * 180_000,
);

/** Writes as much as segments have, and has each member forget what it may. */
async function goOn(members: Members, bytes = 5_000_000): Promise<void> {
  await writeWal(members.primary, bytes);
  for (const server of members.servers) if (server.running) await server.sql('CHECKPOINT');
  await members.followed();
  // A restartpoint takes the last checkpoint that was replayed.
  for (const standby of members.standbys) if (standby.running) await standby.sql('CHECKPOINT');
}

test.each(TRIED.slice(-1))('away during two promotions, PostgreSQL %i', async (major) => {
  const { members, directory, run } = await receiving(major, OURS);
  const [first, second] = members.standbys as [PostgresServer, PostgresServer];
  await allCover(members, directory);
  await writeWal(members.primary, 1_500_000);
  expect(await run.stop('SIGKILL')).toMatchObject({ signal: 'SIGKILL' });
  await goOn(members);
  expect(await members.failOver(first)).toBe(2);
  await goOn(members);
  expect(await members.failOver(second)).toBe(3);
  await goOn(members);
  const options = ['-S', 'walkeep', '--synchronous', OURS];
  const again = keep(receive(directory, members.conninfo, options));
  // The rest of each timeline up to its fork comes first, from a server that was on none of them.
  await again.waitForOutput(
    /\(timeline 1\)[\s\S]*switched to timeline 2[\s\S]*switched to timeline 3/,
  );
  await waitFor(
    async () => {
      const problem = await holds(directory, second, await second.currentLsn(), 3);
      const problems = [...(problem ? [problem] : []), ...members.differences(directory)];
      if (problems.length > 0) throw new Error(problems.join('; '));
      return true;
    },
    { what: 'the receiver to catch up' },
  );
  expect(again.stderr).not.toMatch(/gap|has already been removed/);
  expect(await again.stop()).toEqual({ code: 0, signal: null });
  expect((await keep(runCli(['verify', directory])).exit).code).toBe(0);
});

test.each(TRIED.slice(-1))(
  'a failover that would lose WAL is told before, PostgreSQL %i',
  async (major) => {
    const external = '--member-slots=external';
    const { members, directory, run } = await receiving(major, external, '--ensure-slot');
    const [b, c] = members.standbys as [PostgresServer, PostgresServer];
    const covers = async () => (await memberCovers(members, directory, external)).covers;
    // Nobody made any yet.
    await run.waitForOutput(
      new RegExp(`warning: member 127.0.0.1:${b.port} covers: no: it has no`),
    );
    await run.waitForOutput(new RegExp(`: member 127.0.0.1:${members.primary.port} covers: yes: `));
    const none = await memberCovers(members, directory, external);
    expect(none.code).toBe(2);
    expect(none.covers.get(b.port)).toMatch(/^no: it has no replication slot "walkeep"/);
    expect(none.covers.get(members.primary.port)).toMatch(/^yes: /);
    for (const standby of [b, c]) {
      await standby.sql("SELECT pg_create_physical_replication_slot('walkeep', true)");
    }
    await waitFor(async () => [...(await covers()).values()].every((s) => s.startsWith('yes: ')), {
      what: 'all to cover',
      intervalMs: 200,
    });
    await run.stop('SIGKILL');
    await goOn(members);
    // What replaced a member that had it: the slot begins where nothing is received yet.
    await b.sql("SELECT pg_drop_replication_slot('walkeep')");
    await b.sql("SELECT pg_create_physical_replication_slot('walkeep', true)");
    const ahead = await memberCovers(members, directory, external);
    expect(ahead.code).toBe(2);
    expect(ahead.covers.get(b.port)).toMatch(
      /^no: .*, ahead of .*: it protects nothing until then/,
    );
    expect(ahead.covers.get(c.port)).toMatch(/^yes: /);
    const nagios = runCli([
      ...['check', '--nagios', '-w', '-D', directory, '-d', members.conninfo],
      ...['-S', 'walkeep', external],
    ]);
    expect((await keep(nagios).exit).code).toBe(2);
    expect(nagios.stdout).toMatch(/^WALKEEP CRITICAL - .*member covers: no: 127.0.0.1:/);
    await members.failOver(b);
    await goOn(members);
    const again = keep(
      receive(directory, members.conninfo, ['-S', 'walkeep', '--synchronous', '--no-loop']),
    );
    expect((await again.exit).code).toBe(1);
    expect(again.stderr).toMatch(/gap|has already been removed/);
  },
);

test('slots that are lost are made anew; other clusters, rights and machines are told', async () => {
  const { members, directory, run } = await receiving(MAJORS.at(-1)!, OURS);
  const [b, c] = members.standbys as [PostgresServer, PostgresServer];
  await allCover(members, directory);
  expect(run.stderr).toMatch(
    new RegExp(`: member 127.0.0.1:${b.port} covers: yes \\(slot created\\)`),
  );
  await run.stop('SIGKILL');
  await b.configure({ max_slot_wal_keep_size: '1MB' });
  await goOn(members);
  const lost = await memberCovers(members, directory, OURS);
  expect(lost.code).toBe(2);
  expect(lost.covers.get(b.port)).toMatch(/^no: its replication slot "walkeep" is lost/);
  expect(lost.covers.get(c.port)).toMatch(/^yes: /);

  const other = keep(await PostgresServer.create({ major: MAJORS.at(-1)!, fresh: true }));
  const nobody = await freePort();
  await members.primary.sql(ROLE);
  await members.followed();
  // May replicate, and connect to no database.
  writeFileSync(join(c.dataDir, 'pg_hba.conf'), HBA);
  await c.configure({});
  const hosts = [b.port, c.port, other.port, nobody];
  const option = `--members=host=${hosts.map(() => '127.0.0.1')} port=${hosts} user=replicator`;
  const start = () => keep(receive(directory, members.conninfo, ['-S', 'walkeep', OURS, option]));
  await other.sql(ROLE);
  const second = start();
  const says = (port: number, text: string) =>
    second.waitForOutput(new RegExp(`member 127.0.0.1:${port} covers: ${text}`));
  await says(b.port, 'yes \\(slot replaced\\)');
  await says(c.port, 'unknown: .*no pg_hba.conf entry');
  await says(other.port, 'no: it is of cluster \\d+, the archive of \\d+');
  await says(nobody, 'unknown: .*refused');
  expect(second.stderr).toMatch(/hint: The role needs REPLICATION, and in pg_hba.conf a line for/);
  expect(await other.sql('SELECT * FROM pg_replication_slots')).toEqual([]);
  const { code, covers } = await memberCovers(members, directory, OURS, option);
  expect(code).toBe(2);
  expect(covers.get(b.port)).toMatch(/^yes: /);
  expect(covers.get(c.port)).toMatch(/^unknown: /);
  expect(covers.get(other.port)).toMatch(/^no: it is of cluster/);
  expect(covers.get(nobody)).toMatch(/^unknown: /);
  // It is found out by itself that things are well.
  writeFileSync(
    join(c.dataDir, 'pg_hba.conf'),
    `${HBA}host postgres replicator 127.0.0.1/32 trust\n`,
  );
  await c.configure({});
  await says(c.port, 'yes: ');
  // No session of ours keeps a server from stopping.
  await members.primary.stop();
  await b.stop();
  expect(await second.stop()).toEqual({ code: 0, signal: null });
});

test('a primary that vanishes without a word is left when another one is promoted', async () => {
  const members = keep(await Members.create(MAJORS.at(-1)!));
  const proxy = keep(await TcpProxy.listen(members.primary.port));
  const [next] = members.standbys as [PostgresServer, PostgresServer];
  const directory = archiveDirectory();
  const conninfo = `host=127.0.0.1,127.0.0.1 port=${proxy.port},${next.port} user=postgres target_session_attrs=read-write`;
  // By itself it would bear the silence for twenty minutes.
  const options = ['-S', 'walkeep', '--synchronous', OURS, '--receive-timeout=600'];
  const run = keep(receive(directory, conninfo, options));
  await run.waitForOutput(new RegExp(`: member 127.0.0.1:${next.port} covers: yes`));
  await writeWal(members.primary, 100_000);
  await members.followed();
  proxy.stall();
  await next.promote();
  await run.waitForOutput(/nothing was received from the server for \d+ seconds/);
  await run.waitForOutput(/switched to timeline 2|streaming at \S+ \(timeline 2\)/);
  expect(await run.stop()).toEqual({ code: 0, signal: null });
});

const HBA = 'local all postgres trust\nhost replication all 127.0.0.1/32 trust\n';
