import { expect, test } from 'vitest';
import { disposer } from '../support/cleanup.js';
import { runCli } from '../support/cli.js';
import { Members, memberCovers, underLoad } from '../support/members.js';
import { MAJORS, type Major } from '../support/postgres.js';
import { archiveDirectory, holds, receive } from '../support/receiving.js';
import { waitFor } from '../support/wait.js';

const keep = disposer();
/** Failovers of each major; unset: one, of the oldest and the newest. */
const ROUNDS = Number(process.env.WALKEEP_FAILOVERS ?? 1);
const TRIED = process.env.WALKEEP_FAILOVERS ? MAJORS : MAJORS.filter((m) => m === 14 || m === 18);

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
