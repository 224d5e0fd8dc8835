import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { disposer } from '../../support/cleanup.js';
import { forkPoint, pair } from '../../support/failover.js';
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
  [18, 'pg_receivewal'],
];

test.each(CASES.filter(([major]) => MAJORS.includes(major)))(
  'a fork exactly on a segment boundary is followed (PostgreSQL %i, %s)',
  async (major, program) => {
    const [primary, standby] = (await pair(major)).map(keep) as Awaited<ReturnType<typeof pair>>;
    const directory = archiveDirectory();
    const conninfo = `host=127.0.0.1,127.0.0.1 port=${primary.port},${standby.port} user=postgres`;
    const run = keep(receive(directory, conninfo, [], { program }));
    await run.waitForOutput(/starting log streaming/);
    await writeWal(primary, 400_000);
    // Nothing follows the switch: an immediate stop writes no shutdown checkpoint.
    await primary.sql("SELECT pg_logical_emit_message(false, 'x', 'y')");
    const [row] = await primary.sql('SELECT pg_switch_wal() AS lsn');
    const segment = (await primary.sql('SELECT pg_walfile_name($1) AS n', [row?.lsn]))[0]?.n;
    await waitFor(() => existsSync(join(directory, segment)), { what: 'the last segment' });
    await waitFor(async () => {
      const [r] = await standby.sql('SELECT pg_last_wal_replay_lsn()::text AS l');
      return /00000$/.test(r?.l ?? '');
    });
    await primary.stop('immediate');
    expect(await standby.promote()).toBe(2);
    expect((await forkPoint(standby)) % BigInt(standby.segmentSize)).toBe(0n);

    await run.waitForOutput(/switched to timeline 2/);
    await writeWal(standby, 1_300_000);
    await waitEqual(directory, standby, { timeline: 2, others: [primary] });
    expect(existsSync(join(directory, '00000002.history'))).toBe(true);
    expect(await run.stop()).toEqual({ code: 0, signal: null });
  },
);
