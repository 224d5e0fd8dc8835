import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { readLedger } from '../../src/archive/ledger.js';
import { disposer } from '../support/cleanup.js';
import { caughtUp, cutOff, pair } from '../support/failover.js';
import { MAJORS, type Major } from '../support/postgres.js';
import {
  archiveDirectory,
  type Program,
  receive,
  waitEqual,
  writeWal,
} from '../support/receiving.js';

const keep = disposer();
const CASES: [Major, Program][] = [
  [14, 'walkeep'],
  [18, 'walkeep'],
  [18, 'pg_receivewal'],
];

async function servers(major: Major) {
  const [primary, standby] = (await pair(major)).map(keep) as Awaited<ReturnType<typeof pair>>;
  const hosts = `host=127.0.0.1,127.0.0.1 port=${primary.port},${standby.port} user=postgres`;
  return { primary, standby, hosts, directory: archiveDirectory() };
}

describe.each(CASES.filter(([major]) => MAJORS.includes(major)))(
  'PostgreSQL %i, %s',
  (major, program) => {
    test('follows a failover to the promoted standby', async () => {
      const { primary, standby, hosts, directory } = await servers(major);
      const conninfo = `${hosts} target_session_attrs=read-write`;
      const run = keep(receive(directory, conninfo, ['--synchronous'], { program }));
      await run.waitForOutput(/starting log streaming/);
      await writeWal(primary, 1_300_000);
      await waitEqual(directory, primary);
      // Switched over in order: the standby gets all, the receiver as well.
      await primary.stop();
      await standby.promote();
      await run.waitForOutput(
        /starting log streaming at \S+ \(timeline 1\)[\s\S]*switched to timeline 2 at/,
      );
      await writeWal(standby, 1_300_000);
      await waitEqual(directory, standby, { timeline: 2, others: [primary] });
      expect(existsSync(join(directory, '00000002.history'))).toBe(true);
      expect(await run.stop()).toEqual({ code: 0, signal: null });
      expect((await readLedger(directory))?.lineage.map((l) => l.timeline)).toEqual([1, 2]);
    });

    test('goes on with a standby that is promoted under its hands, twice', async () => {
      const { primary, standby, directory } = await servers(major);
      const third = keep(await standby.createStandby({ archive: true }));
      const conninfo = `host=127.0.0.1 port=${third.port} user=postgres`;
      const run = keep(receive(directory, conninfo, ['-Z', 'gzip:1'], { program }));
      await run.waitForOutput(/starting log streaming/);
      await writeWal(primary, 700_000);
      await caughtUp(primary, third);
      await waitEqual(directory, third, { others: [primary] });
      await standby.promote();
      await writeWal(standby, 1_200_000);
      await run.waitForOutput(/switched to timeline 2 at/);
      await caughtUp(standby, third);
      await waitEqual(directory, third, { timeline: 2, others: [primary, standby] });
      expect(await third.promote()).toBe(3);
      await run.waitForOutput(/switched to timeline 3 at/);
      await writeWal(third, 1_200_000);
      await waitEqual(directory, third, { timeline: 3, others: [primary, standby] });
      expect(await run.stop()).toEqual({ code: 0, signal: null });
      expect(run.stderr).not.toMatch(/error|warning/);
    });
  },
);

test('waits, ever longer, for a standby that lags behind', async () => {
  const { primary, standby, hosts, directory } = await servers(MAJORS.at(-1)!);
  const run = keep(receive(directory, hosts));
  await run.waitForOutput(/starting log streaming/);
  await cutOff(primary, standby);
  await writeWal(primary, 2_500_000);
  await waitEqual(directory, primary);
  await primary.stop();
  await run.waitForOutput(/is ahead of the WAL flush position of this server[\s\S]*to try again/);
  expect(run.stderr).toMatch(
    /hint: The server ends at \S+, before what is stored. A standby that lags/,
  );
  // The delays grow although the server answers each time.
  await run.waitForOutput(
    /flush position.*\n.*\n.*waiting (0\.[89]|[1-9]\S*) seconds? to try again/,
  );
  await standby.configure({ primary_conninfo: primary.conninfo({ host: primary.socketDir }) });
  await primary.start();
  await caughtUp(primary, standby);
  await writeWal(primary, 500_000);
  await waitEqual(directory, primary);
  expect(await run.stop()).toEqual({ code: 0, signal: null });
});
