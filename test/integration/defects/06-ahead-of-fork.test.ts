import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { formatLsn } from '../../../src/lsn.js';
import { segmentFileName, segmentOf } from '../../../src/wal/file-name.js';
import { disposer } from '../../support/cleanup.js';
import { cutOff, forkPoint, pair } from '../../support/failover.js';
import { MAJORS, type Major } from '../../support/postgres.js';
import {
  archiveDirectory,
  type Program,
  receive,
  waitEqual,
  writeWal,
} from '../../support/receiving.js';
import { waitFor } from '../../support/wait.js';

const keep = disposer();
const CASES: [Major, Program][] = [
  [15, 'walkeep'],
  [18, 'walkeep'],
  [18, 'pg_receivewal'],
];

/** Bytes that only the old primary and the receiver have. */
const EXTRA = [
  ['in the same segment', 100_000],
  ['segments further', 2_500_000],
] as const;

/** A receiver that has more of the old primary than the new one, which is promoted by then. */
async function ahead(major: Major, program: Program, extra: number, args: string[]) {
  const [primary, standby] = (await pair(major)).map(keep) as Awaited<ReturnType<typeof pair>>;
  if (args.includes('-S')) {
    await primary.sql("SELECT pg_create_physical_replication_slot('s', true)");
  }
  const directory = archiveDirectory();
  const conninfo = `host=127.0.0.1,127.0.0.1 port=${primary.port},${standby.port} user=postgres`;
  const run = keep(receive(directory, conninfo, args, { program }));
  await run.waitForOutput(/starting log streaming/);
  await writeWal(primary, 300_000);
  await cutOff(primary, standby);
  await writeWal(primary, extra);
  const received = await waitEqual(directory, primary);
  await primary.stop('immediate');
  await standby.promote();
  const fork = await forkPoint(standby);
  expect(received).toBeGreaterThan(fork);
  return { primary, standby, directory, run, received, fork };
}

describe.each(CASES.filter(([major]) => MAJORS.includes(major)))(
  'a directory ahead of the fork, PostgreSQL %i, %s',
  (major, program) => {
    // Each costs pg_receivewal its fixed delays of 5 s.
    test.each(program === 'walkeep' ? EXTRA : EXTRA.slice(1))('%s', async (_, extra) => {
      const { primary, standby, directory, run, received, fork } = await ahead(
        major,
        program,
        extra,
        [],
      );
      const [, said, left] = await run.waitForOutput(
        /timeline 1 (?:was received|is stored) up to (\S+), but the server left it at (\S+):/,
      );
      expect([said, left]).toEqual([formatLsn(received), formatLsn(fork)]);
      await writeWal(standby, 200_000);
      await waitEqual(directory, standby, { timeline: 2, others: [primary] });

      // The orphaned tail is as it was.
      const tail = segmentFileName(1, segmentOf(received, 1 << 20), 1 << 20);
      const stored = readFileSync(join(directory, `${tail}.partial`));
      const original = readFileSync(join(primary.dataDir, 'pg_wal', tail));
      const length = Number(received % BigInt(1 << 20));
      expect(stored.subarray(0, length).equals(original.subarray(0, length))).toBe(true);
      const first = segmentFileName(2, segmentOf(fork, 1 << 20), 1 << 20);
      expect(readdirSync(directory).some((name) => name.startsWith(first))).toBe(true);

      // The tail's segment number may be the highest for long: nothing starts there again.
      for (let i = 0; i < 2; i++) {
        const starts = () => run.stderr.match(/starting log streaming at/g)?.length ?? 0;
        const before = starts();
        const [pid] = await standby.walSenderPids();
        await standby.sql('SELECT pg_terminate_backend($1)', [pid]);
        await waitFor(() => starts() > before);
        await writeWal(standby, 900_000);
        await waitEqual(directory, standby, { timeline: 2, others: [primary] });
        if (program === 'pg_receivewal') break;
      }
      expect(await run.stop()).toEqual({ code: 0, signal: null });
    });
  },
);

test.skipIf(!MAJORS.includes(18))('--ensure-slot creates the slot on the new primary', async () => {
  const args = ['-S', 's', '--synchronous', '--ensure-slot'];
  const { primary, standby, directory, run } = await ahead(18, 'walkeep', 100_000, args);
  await waitFor(async () => {
    const [slot] = await standby.sql('SELECT active FROM pg_replication_slots');
    return slot?.active === true;
  });
  await writeWal(standby, 1_200_000);
  await waitEqual(directory, standby, { timeline: 2, others: [primary] });
  expect(run.stderr).not.toMatch(/does not exist/);
  expect(await run.stop()).toEqual({ code: 0, signal: null });
});

test.skipIf(!MAJORS.includes(18))(
  'without it the missing slot is named and waited for',
  async () => {
    const { primary, standby, directory, run } = await ahead(18, 'walkeep', 100_000, ['-S', 's']);
    await run.waitForOutput(/replication slot "s" does not exist[\s\S]*to try again/);
    await standby.sql("SELECT pg_create_physical_replication_slot('s', true)");
    await waitEqual(directory, standby, { timeline: 2, others: [primary] });
    expect(await run.stop('SIGTERM')).toEqual({ code: 0, signal: null });
  },
);
