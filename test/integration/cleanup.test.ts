import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { segmentFileName } from '../../src/wal/file-name.js';
import { randomNumbers } from '../support/archives.js';
import { disposer } from '../support/cleanup.js';
import { runCli } from '../support/cli.js';
import { died, dyingAt } from '../support/dying-at.js';
import { caughtUp } from '../support/failover.js';
import { RandomKills } from '../support/kill-times.js';
import { MAJORS, PostgresServer } from '../support/postgres.js';
import { writeWal } from '../support/receiving.js';
import { scratchDir } from '../support/scratch.js';
import { walkeepForServer } from '../support/server-program.js';
import { waitFor } from '../support/wait.js';

const keep = disposer();

test.each(MAJORS.filter((major) => [15, MAJORS.at(-1)].includes(major)))(
  'as archive_cleanup_command, major %i',
  async (major) => {
    const primary = keep(await PostgresServer.create({ major, archive: true }));
    const backup = await primary.baseBackup();
    const standby = keep(
      await primary.recoverFrom({
        backup,
        restoreCommand: `cp "${primary.archiveDir}/%f" %p`,
        standby: true,
        archive: false,
        settings: {
          archive_cleanup_command: `${walkeepForServer()} cleanup "${primary.archiveDir}" %r`,
          primary_conninfo: primary.conninfo({ host: primary.socketDir }),
        },
      }),
    );
    for (let i = 0; i < 4; i++) {
      await writeWal(primary, 300_000);
      await primary.waitArchived(await primary.switchWal());
    }
    const segments = () =>
      readdirSync(primary.archiveDir).filter((name) => /^[0-9A-F]{24}$/.test(name));
    const before = segments();
    await primary.sql('CHECKPOINT');
    const current = await primary.currentSegment();
    await primary.waitArchived(await primary.switchWal());
    await caughtUp(primary, standby);
    await standby.sql('CHECKPOINT');
    await waitFor(() => !segments().some((name) => name < current), {
      what: 'the archive to be cleaned up',
    });
    expect(before.length).toBeGreaterThan(3);
    expect(segments()).toContain(current);
    expect(await standby.log()).not.toMatch(/archive_cleanup_command.*failed/);
  },
);

test('kill -9 at random instants: no hole, and nothing that is to be kept is gone', async () => {
  const size = 1024 * 1024;
  const random = randomNumbers(3);
  const name = (n: number) => segmentFileName(1, BigInt(n), size);
  const directory = scratchDir('archive');
  const all = 4000;
  for (let n = 0; n < all; n++) writeFileSync(join(directory, name(n)), '');
  const left = () => readdirSync(directory).sort();
  const kills = new RandomKills(random);
  const expectNoHole = (before: string[], oldest: number): void => {
    const after = left();
    expect(after).toEqual(before.slice(before.length - after.length));
    expect(after.length).toBeGreaterThanOrEqual(all - oldest);
  };
  const [first, stage] = [left(), { when: 'after', call: 'unlink', path: /0000096$/ } as const];
  const half = { what: 'half of it', ...stage };
  await died(keep(runCli(['cleanup', directory, name(300)], dyingAt(half))), half);
  expectNoHole(first, 300);
  for (let oldest = 300; oldest < all; oldest += 300) {
    const before = left();
    await kills.kill(keep(runCli(['cleanup', directory, name(oldest)])));
    expectNoHole(before, oldest);
  }
  const last = keep(runCli(['cleanup', directory, name(all - 1)]));
  expect((await last.exit).code).toBe(0);
  expect(left()).toEqual([name(all - 1)]);
});
