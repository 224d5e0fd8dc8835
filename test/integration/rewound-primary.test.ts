import { spawnSync } from 'node:child_process';
import { expect, test } from 'vitest';
import { disposer } from '../support/cleanup.js';
import { runCli } from '../support/cli.js';
import { cutOff } from '../support/failover.js';
import { allCover, goOn, OURS, receivingFrom } from '../support/members.js';
import type { PostgresServer } from '../support/postgres.js';
import { holds, waitEqual, writeWal } from '../support/receiving.js';
import { serverUser } from '../support/scratch.js';
import { findTool } from '../support/tools.js';
import { waitFor } from '../support/wait.js';

const keep = disposer();
const MAJOR = 15;
const pgRewind = findTool('pg_rewind', MAJOR);

test.skipIf(!pgRewind)(
  'a rewound old primary is a member again, and followed when it is promoted: pg_rewind 15',
  async () => {
    const { members, directory, run } = await receivingFrom(keep, MAJOR, [OURS], {
      wal_log_hints: 'on',
    });
    const old = members.primary;
    const [next] = members.standbys as [PostgresServer];
    await allCover(members, directory);
    // What it writes now nobody has but the archive.
    for (const standby of members.standbys) await cutOff(old, standby);
    await writeWal(old, 2_500_000);
    await waitEqual(directory, old);
    await old.stop();
    expect(await members.takeOver(next)).toBe(2);
    await run.waitForOutput(/were received and are not on timeline 2/);
    await goOn(members);

    members.keepWal(old);
    // pg_rewind takes the timeline from its last checkpoint.
    await next.sql('CHECKPOINT');
    const args = ['-c', '-D', old.dataDir];
    const { status, stderr } = spawnSync(
      pgRewind!,
      [...args, `--source-server=${next.conninfo({ dbname: 'postgres' })}`],
      { ...serverUser, encoding: 'utf8', cwd: old.dataDir },
    );
    expect(status, stderr).toBe(0);
    await members.join(old);
    await members.followed();
    // Its slots are gone with what was rewound: it gets its own anew.
    await allCover(members, directory);

    expect(await members.failOver(old)).toBe(3);
    await goOn(members);
    await waitFor(
      async () => {
        const problem = await holds(directory, old, await old.currentLsn(), 3);
        const problems = [...(problem ? [problem] : []), ...members.differences(directory)];
        if (problems.length > 0) throw new Error(problems.join('; '));
        return true;
      },
      { what: 'the receiver to catch up' },
    );
    expect(run.stderr).not.toMatch(/gap: |has already been removed/);
    // Of the whole, only what was lost with the rewinding is not on the way to the newest.
    expect(run.stderr.match(/were received and are not on/g)).toHaveLength(1);
    expect(await run.stop()).toEqual({ code: 0, signal: null });
    const verify = keep(runCli(['verify', directory]));
    expect((await verify.exit).code, verify.stdout).toBe(0);
  },
);
