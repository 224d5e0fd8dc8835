import { expect, test } from 'vitest';
import { parseLsn } from '../../src/lsn.js';
import { disposer } from '../support/cleanup.js';
import { goOn, Members, OURS } from '../support/members.js';
import { NEWEST_MAJOR, type PostgresServer } from '../support/postgres.js';
import { archiveDirectory, holds, receive } from '../support/receiving.js';
import { waitFor } from '../support/wait.js';

const keep = disposer();

test.each(NEWEST_MAJOR)(
  'a receiver of a standby goes with it when another one is promoted, PostgreSQL %i',
  async (major) => {
    const members = keep(await Members.create(major));
    const [next, source] = members.standbys as [PostgresServer, PostgresServer];
    const directory = archiveDirectory();
    const all = `--members=${members.conninfo.replace(/ target_session_attrs=\S+/, '')}`;
    const run = keep(receive(directory, source.conninfo(), ['-S', 'walkeep', OURS, all]));
    await run.waitForOutput(/starting log streaming/);
    const hasAll = (timeline: number) =>
      waitFor(
        async () => {
          const problem = await holds(directory, source, await source.currentLsn(), timeline);
          const problems = [...(problem ? [problem] : []), ...members.differences(directory)];
          if (problems.length > 0) throw new Error(problems.join('; '));
          return true;
        },
        { what: `all of timeline ${timeline}` },
      );
    await goOn(members);
    await hasAll(1);
    // Nobody receives there: it is moved on all the same.
    const end = await members.primary.currentLsn();
    const segment = BigInt(members.primary.segmentSize);
    await waitFor(
      async () => {
        const [slot] = await members.primary.sql(
          "SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'walkeep'",
        );
        return slot?.restart_lsn && parseLsn(slot.restart_lsn) >= end - segment;
      },
      { what: 'the slot on the primary to be moved on' },
    );
    // In good order, so that neither standby has more than the other.
    await members.primary.stop();
    expect(await members.takeOver(next)).toBe(2);
    await goOn(members);
    await hasAll(2);
    expect(await members.failOver(source)).toBe(3);
    await goOn(members);
    await hasAll(3);
    expect(run.stderr).not.toMatch(/gap: |has already been removed|WK_REWRITE/);
    expect(await run.stop()).toEqual({ code: 0, signal: null });
  },
);
