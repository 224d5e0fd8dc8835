import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { type Lsn, parseLsn } from '../../src/lsn.js';
import { segmentFileName, segmentOf } from '../../src/wal/file-name.js';
import { disposer } from '../support/cleanup.js';
import { caughtUp } from '../support/failover.js';
import { MAJORS, PostgresServer } from '../support/postgres.js';
import { archiveDirectory, receive, waitEqual } from '../support/receiving.js';
import { RecordedRows } from '../support/recorded-rows.js';
import { handOver, readsEveryPage, walkeepDone } from '../support/restoring.js';
import { waitFor } from '../support/wait.js';

vi.setConfig({ testTimeout: 180_000 });

const keep = disposer();
const SEGMENT = 1 << 20;
const PAIR = ([15, 18] as const).filter((major) => MAJORS.includes(major));

async function backup(server: PostgresServer, archive: string) {
  // Shorter than any wait for a segment that nobody ends.
  const limits = ['--wal-timeout', '30'];
  const args = ['backup', '--json', ...limits, '-d', server.conninfo(), archive];
  const { stdout } = await walkeepDone(args);
  return JSON.parse(stdout.trim().split('\n').at(-1) as string);
}

test.each(PAIR)(
  'a backup of a standby of %i ends within a segment, and is restored',
  async (major) => {
    const primary = keep(
      await PostgresServer.create({
        major,
        initdbArgs: ['--data-checksums'],
        // Nothing ends a segment but WAL that fills it.
        settings: { archive_timeout: '0', checkpoint_timeout: '1h' },
      }),
    );
    const rows = new RecordedRows([undefined]);
    await rows.prepare(primary);
    const standby = keep(await primary.createStandby());
    const archive = archiveDirectory();
    const receiver = keep(receive(archive, primary.conninfo()));
    await receiver.waitForOutput(/starting log streaming/);
    await rows.commits(primary, { most: 3 });
    await primary.sql('CHECKPOINT');
    await waitEqual(archive, primary);
    await caughtUp(primary, standby);
    const record = await backup(standby, archive);
    expect(record.from).toBe('standby');
    // Its last segment was still being filled when it was done: nobody switched, nobody waited.
    const last = segmentFileName(
      1,
      segmentOf((parseLsn(record.end.lsn) - 1n) as Lsn, SEGMENT),
      SEGMENT,
    );
    expect(existsSync(join(archive, last))).toBe(false);
    expect(existsSync(join(archive, `${last}.partial`))).toBe(true);
    expect(await primary.currentSegment()).toBe(last);
    console.log(
      `${major}, standby: ${(record.seconds - record.copySeconds).toFixed(2)} s after its last byte`,
    );

    await rows.commits(primary, { most: 3 });
    await waitEqual(archive, primary);
    await primary.kill9();
    await standby.kill9();
    await receiver.stop();
    handOver(archive);
    for (const args of [[], ['--to', 'immediate', '--action', 'promote']]) {
      const restored = keep(
        await standby.createRestored(async (dataDir) => {
          await walkeepDone(['restore', ...args, archive, dataDir]);
        }),
      );
      restored.environment = {};
      await restored.start();
      await waitFor(
        async () => (await restored.sql('SELECT pg_is_in_recovery() AS r'))[0]?.r === false,
        { what: 'the end of recovery' },
      );
      const moment = rows.moments[args.length === 0 ? rows.moments.length - 1 : 2];
      expect(await rows.digest(restored)).toBe(moment?.digest);
      await readsEveryPage(restored);
      await restored.destroy();
    }
  },
);

test.each(PAIR)('a backup of an idle primary of %i ends without more WAL', async (major) => {
  const server = keep(
    await PostgresServer.create({
      major,
      settings: { archive_timeout: '0', checkpoint_timeout: '1h' },
    }),
  );
  const archive = archiveDirectory();
  const receiver = keep(receive(archive, server.conninfo()));
  await receiver.waitForOutput(/starting log streaming/);
  for (const round of [1, 2]) {
    const record = await backup(server, archive);
    // The server ends the segment itself, and no more than that was written meanwhile.
    const end = parseLsn(record.end.lsn);
    const now = await server.currentLsn();
    expect(now - end).toBeLessThan(BigInt(2 * SEGMENT));
    console.log(
      `${major}, idle primary, ${round}: ${(record.seconds - record.copySeconds).toFixed(2)} s after its last byte`,
    );
  }
});
