import { execFileSync } from 'node:child_process';
import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { disposer } from '../support/cleanup.js';
import { runCli } from '../support/cli.js';
import { allCover, goOn, OURS, receivingFrom } from '../support/members.js';
import { copyPackage } from '../support/package-copy.js';
import { NEWEST_MAJOR, type PostgresServer } from '../support/postgres.js';
import { holds, writeWal } from '../support/receiving.js';
import { serverUser } from '../support/scratch.js';
import { waitFor } from '../support/wait.js';

const keep = disposer();

/** Until the archive has all of a server. */
const hasAll = (directory: string, server: PostgresServer, timeline: number) =>
  waitFor(
    async () => {
      const problem = await holds(directory, server, await server.currentLsn(), timeline);
      if (problem) throw new Error(problem);
      return true;
    },
    { what: `all of timeline ${timeline}` },
  );

test.each(NEWEST_MAJOR)(
  'after a discarded promotion the old primary goes on as a timeline of its own, PostgreSQL %i',
  async (major) => {
    const { members, directory, run } = await receivingFrom(keep, major, [OURS]);
    const old = members.primary;
    const [promoted, third] = members.standbys as [PostgresServer, PostgresServer];
    await allCover(members, directory);
    await writeWal(old, 1_500_000);
    await members.followed();
    await old.stop();
    expect(await members.takeOver(promoted)).toBe(2);
    await writeWal(promoted, 1_500_000);
    await hasAll(directory, promoted, 2);

    // It is given up, and the old primary goes on where it was. What it has is not taken for the
    // later timeline, nor for a gap.
    for (const server of [promoted, third]) {
      await server.kill9();
      members.keepWal(server);
    }
    members.primary = old;
    await old.start();
    await writeWal(old, 2_500_000);
    await old.sql('CHECKPOINT');
    await run.waitForOutput(/on timeline 2 is not in this server's history: .* on timeline 1/);
    await run.waitForOutput(/hint: .*discarded.* recovery_target_timeline=1/);

    const { uid, gid } = serverUser;
    if (uid !== undefined) execFileSync('chown', ['-R', `${uid}:${gid}`, directory]);
    const walkeep = `${process.execPath} ${join(copyPackage(), 'bin', 'walkeep')}`;
    await old.stop();
    await old.append('recovery.signal', '');
    await old.configure({
      recovery_target_timeline: '1',
      restore_command: `${walkeep} fetch ${directory} %f %p`,
    });
    await old.start();
    await waitFor(async () => (await old.sql('SELECT pg_is_in_recovery() AS r'))[0]?.r === false, {
      what: 'the end of recovery',
    });
    await writeWal(old, 1_500_000);
    await run.waitForOutput(/timeline 3 left timeline 1 at \S+ and does not go on with timeline 2/);
    await hasAll(directory, old, 3);
    await members.waitEqual(directory);
    expect(run.stderr).not.toMatch(/gap: |has already been removed/);
    expect(await run.stop()).toEqual({ code: 0, signal: null });
    const verify = keep(runCli(['verify', directory]));
    expect((await verify.exit).code, verify.stdout).toBe(0);
  },
);

test.each(NEWEST_MAJOR)(
  'a member that was promoted by mistake, and made anew, changes nothing, PostgreSQL %i',
  async (major) => {
    const { members, directory, run } = await receivingFrom(keep, major, [OURS]);
    const { primary } = members;
    const [mistaken] = members.standbys as [PostgresServer];
    await allCover(members, directory);
    expect(await mistaken.promote()).toBe(2);
    await writeWal(mistaken, 1_500_000);
    await writeWal(primary, 1_500_000);
    await hasAll(directory, primary, 1);
    await mistaken.kill9();
    // What it had archived goes with it: else it is what the others take for the newest.
    for (const name of readdirSync(mistaken.archiveDir)) {
      if (name.startsWith('00000002')) rmSync(join(mistaken.archiveDir, name));
    }
    await members.rebuild(mistaken);
    await goOn(members);
    await allCover(members, directory);
    await hasAll(directory, primary, 1);

    expect(await members.failOver(mistaken)).toBe(2);
    await goOn(members);
    await hasAll(directory, mistaken, 2);
    expect(run.stderr).not.toMatch(/gap: |has already been removed|were received and are not on/);
    await members.waitEqual(directory);
    expect(await run.stop()).toEqual({ code: 0, signal: null });
  },
);
