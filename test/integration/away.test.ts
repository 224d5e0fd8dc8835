import { expect, test } from 'vitest';
import { disposer } from '../support/cleanup.js';
import { runCli } from '../support/cli.js';
import { allCover, goOn, OURS, receivingFrom } from '../support/members.js';
import { NEWEST_MAJOR } from '../support/postgres.js';
import { holds, receive, writeWal } from '../support/receiving.js';
import { waitFor } from '../support/wait.js';

const keep = disposer();
const AWAY = NEWEST_MAJOR.flatMap((major) => [1, 2].map((promotions) => ({ major, promotions })));

test.each(AWAY)(
  'away during $promotions promotions, PostgreSQL $major',
  async ({ major, promotions }) => {
    const { members, directory, run } = await receivingFrom(keep, major, [OURS]);
    await allCover(members, directory);
    await writeWal(members.primary, 1_500_000);
    expect(await run.stop('SIGKILL')).toMatchObject({ signal: 'SIGKILL' });
    await goOn(members);
    for (let n = 0; n < promotions; n++) {
      expect(await members.failOverToForemost()).toBe(n + 2);
      await goOn(members);
    }
    const options = ['-S', 'walkeep', '--synchronous', OURS];
    const again = keep(receive(directory, members.conninfo, options));
    // The rest of each timeline up to its fork comes first, from a server that was on none of them.
    const all = Array.from({ length: promotions }, (_, n) => `switched to timeline ${n + 2}`);
    await again.waitForOutput(new RegExp(['\\(timeline 1\\)', ...all].join('[\\s\\S]*')));
    const { primary } = members;
    await waitFor(
      async () => {
        const problem = await holds(directory, primary, await primary.currentLsn(), promotions + 1);
        const problems = [...(problem ? [problem] : []), ...members.differences(directory)];
        if (problems.length > 0) throw new Error(problems.join('; '));
        return true;
      },
      { what: 'the receiver to catch up' },
    );
    expect(again.stderr).not.toMatch(/gap: |has already been removed/);
    expect(await again.stop()).toEqual({ code: 0, signal: null });
    expect((await keep(runCli(['verify', directory])).exit).code).toBe(0);
  },
);
