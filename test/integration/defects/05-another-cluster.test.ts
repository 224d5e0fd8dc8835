import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { disposer } from '../../support/cleanup.js';
import { caughtUp, cutOff, pair } from '../../support/failover.js';
import { MAJORS, PostgresServer } from '../../support/postgres.js';
import {
  archiveDirectory,
  PROGRAMS,
  receive,
  waitEqual,
  writeWal,
} from '../../support/receiving.js';

const keep = disposer();
const major = MAJORS.at(-1)!;

/** Every file of a directory with a digest of its content. */
function snapshot(directory: string): Record<string, string> {
  const digest = (name: string) =>
    createHash('sha256')
      .update(readFileSync(join(directory, name)))
      .digest('hex');
  return Object.fromEntries(readdirSync(directory).map((name) => [name, digest(name)]));
}

test.each(PROGRAMS)('%s refuses another cluster and touches nothing', async (program) => {
  const server = keep(await PostgresServer.create({ major, archive: true }));
  const other = keep(await PostgresServer.create({ major, fresh: true }));
  const directory = archiveDirectory();
  const run = keep(receive(directory, server.conninfo(), [], { program }));
  await run.waitForOutput(/starting log streaming/);
  await writeWal(server, 1_200_000);
  await waitEqual(directory, server);
  await run.stop();
  await writeWal(other, 2_000_000);
  // First the ledger tells, then only the pages do.
  for (const withLedger of [true, false]) {
    if (!withLedger) rmSync(join(directory, '.walkeep-ledger'));
    const before = snapshot(directory);
    const wrong = keep(receive(directory, other.conninfo(), [], { program }));
    expect((await wrong.exit).code).toBe(1);
    expect(wrong.stderr).toMatch(/error: the server is another cluster than the one stored here/);
    expect(wrong.stderr).toContain(await server.systemIdentifier());
    expect(wrong.stderr).toContain(await other.systemIdentifier());
    expect(wrong.stderr.match(/error:/g)).toHaveLength(1);
    expect(snapshot(directory)).toEqual(before);
  }
});

test.each(PROGRAMS)('%s tells two standbys apart that both became timeline 2', async (program) => {
  const [primary, first] = (await pair(major)).map(keep) as Awaited<ReturnType<typeof pair>>;
  const second = keep(await primary.createStandby({ archive: true }));
  await writeWal(primary, 100_000);
  await caughtUp(primary, second);
  await cutOff(primary, first);
  await writeWal(primary, 50_000);
  await cutOff(primary, second);
  for (const standby of [first, second]) expect(await standby.promote()).toBe(2);

  const directory = archiveDirectory();
  const run = keep(receive(directory, first.conninfo(), [], { program }));
  await run.waitForOutput(/starting log streaming/);
  await writeWal(first, 1_200_000);
  await writeWal(second, 2_500_000);
  await waitEqual(directory, first, { timeline: 2, others: [primary] });
  await run.stop();
  const before = snapshot(directory);
  const wrong = keep(receive(directory, second.conninfo(), [], { program }));
  expect((await wrong.exit).code).toBe(1);
  expect(wrong.stderr).toMatch(/error: timeline 2 of the server is not the timeline 2 .* stored/);
  expect(snapshot(directory)).toEqual(before);
});
