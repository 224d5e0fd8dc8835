import { expect, test } from 'vitest';
import { disposer } from '../support/cleanup.js';
import { runCli } from '../support/cli.js';
import {
  allCover,
  goOn,
  memberCovers,
  OURS,
  receivingFrom,
  underLoad,
} from '../support/members.js';
import { MAJORS, NEWEST_MAJOR, OUTER_MAJORS, type PostgresServer } from '../support/postgres.js';
import { holds, receive } from '../support/receiving.js';
import { waitFor } from '../support/wait.js';

const keep = disposer();
/** Failovers of each major, and how long it took to follow each; unset: one, of the oldest and the newest. */
const ROUNDS = Number(process.env.WALKEEP_FAILOVERS ?? 1);
const TRIED = process.env.WALKEEP_FAILOVERS ? MAJORS : OUTER_MAJORS;

test.each(TRIED)(
  'no gap after failovers under load, PostgreSQL %i',
  async (major) => {
    const { members, directory, run } = await receivingFrom(keep, major, [OURS]);
    const took: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const load = await underLoad(members);
      const lost = members.primary;
      const next = members.standbys[round % 2]!;
      await allCover(members, directory);
      // Away for the whole failover, and while the new primary removes what nobody asks it to keep.
      const away = round % 2 === 0;
      if (away) run.child.kill('SIGSTOP');
      const follows = new RegExp(
        `streaming at \\S+ \\(timeline ${round + 2}\\)|switched to timeline ${round + 2} `,
      );
      const followed = run.waitForOutput(follows, 180_000).then(() => performance.now());
      followed.catch(() => {});
      const timeline = await members.failOver(next);
      expect(timeline).toBe(round + 2);
      await load.stop();
      const more = await underLoad(members);
      const far = (await next.currentLsn()) + 6n * 1024n * 1024n;
      await waitFor(async () => (await next.currentLsn()) > far, { what: 'more WAL' });
      const back = performance.now();
      if (away) run.child.kill('SIGCONT');
      took.push((await followed) - (away ? back : members.promotedAt));
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
    if (process.env.WALKEEP_FAILOVERS) {
      const seconds = took.map((ms) => (ms / 1000).toFixed(1)).join(' ');
      console.log(`PostgreSQL ${major}: seconds until each new primary was followed: ${seconds}`);
    }
    expect(run.stderr).not.toMatch(/gap: |has already been removed/);
    await members.waitEqual(directory);
    expect(await run.stop()).toEqual({ code: 0, signal: null });
    const verify = keep(runCli(['verify', '--quick', directory]));
    expect((await verify.exit).code, verify.stdout + verify.stderr).toBeLessThan(2);
  },
  ROUNDS * 180_000,
);

test.each(NEWEST_MAJOR)(
  'a failover that would lose WAL is told before, PostgreSQL %i',
  async (major) => {
    const external = '--member-slots=external';
    const { members, directory, run } = await receivingFrom(keep, major, [
      external,
      '--ensure-slot',
    ]);
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
