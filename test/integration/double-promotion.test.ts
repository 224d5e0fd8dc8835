import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { streamWal } from '../../src/receive/sink.js';
import {
  floorToSegment,
  segmentFileName,
  segmentOf,
  segmentOffset,
} from '../../src/wal/file-name.js';
import { disposer } from '../support/cleanup.js';
import { runCli, unfolded } from '../support/cli.js';
import { forkPoint } from '../support/failover.js';
import { MAJORS, type Major, PostgresServer } from '../support/postgres.js';
import { archiveDirectory, receive, waitEqual, writeWal } from '../support/receiving.js';
import { giveToServer } from '../support/scratch.js';

const keep = disposer();
const PAIR = ([15, 18] as const).filter((major) => MAJORS.includes(major));

/**
 * Takes the server down and up again as a standby, and promotes it: it needs no other server. A
 * shutdown in good order would end the segment, since it archives.
 */
async function promoteAnew(server: PostgresServer): Promise<void> {
  await server.kill9();
  const file = join(server.dataDir, 'standby.signal');
  writeFileSync(file, '');
  giveToServer(file);
  await server.start();
  await server.promote();
}

/**
 * A server that was promoted twice inside one segment. It archives, so it gave its ancestors' last
 * segments `.partial` names: the file that it looks for when timeline 1 is asked for is not there.
 */
async function promotedTwice(server: PostgresServer): Promise<void> {
  await promoteAnew(server);
  await promoteAnew(server);
  const forks = [await forkPoint(server, 2), await forkPoint(server, 3)] as const;
  const [one, two] = forks.map((lsn) => segmentOf(lsn, server.segmentSize));
  expect(one).toBe(two);
  const name = segmentFileName(2, one as bigint, server.segmentSize);
  const names = readdirSync(join(server.dataDir, 'pg_wal'));
  expect(names).toContain(`${name}.partial`);
  expect(names).not.toContain(name);
}

describe.each(PAIR)('two promotions inside one segment, PostgreSQL %i', (major: Major) => {
  async function start(slot: boolean) {
    const settings = { archive_mode: 'on', archive_command: '/bin/true', wal_keep_size: '64MB' };
    const server = keep(await PostgresServer.create({ major, settings }));
    if (slot) await server.sql("SELECT pg_create_physical_replication_slot('s', true)");
    return { server, directory: archiveDirectory(), args: slot ? ['-S', 's'] : [] };
  }

  /** Receives all that the server has, and stops. */
  async function receiveAll(
    { server, directory, args }: Awaited<ReturnType<typeof start>>,
    timeline: number,
  ) {
    const run = keep(receive(directory, server.conninfo(), [...args, '--synchronous']));
    await run.waitForOutput(/starting log streaming/);
    await waitEqual(directory, server, { timeline });
    expect(await run.stop()).toEqual({ code: 0, signal: null });
    return run;
  }

  async function isWhole(directory: string, server: PostgresServer): Promise<void> {
    const verify = keep(runCli(['verify', directory]));
    expect((await verify.exit).code, verify.stdout + verify.stderr).toBe(0);
    // What PostgreSQL asks for on its way along the newest timeline is there, all of it.
    const target = join(archiveDirectory(), 'restored');
    const { segmentSize, dataDir } = server;
    const fork = await forkPoint(server, 2);
    const fetched = async (timeline: number) => {
      const name = segmentFileName(timeline, segmentOf(fork, segmentSize), segmentSize);
      const fetch = keep(runCli(['fetch', directory, name, target]));
      expect((await fetch.exit).code, fetch.stderr).toBe(0);
      return readFileSync(target);
    };
    const newest = segmentFileName(3, segmentOf(fork, segmentSize), segmentSize);
    const expected = readFileSync(join(dataDir, 'pg_wal', newest));
    expect((await fetched(3)).equals(expected)).toBe(true);
    // And along timeline 1, as if it had never been left: up to there, and nothing behind.
    const length = segmentOffset(fork, segmentSize);
    const oldest = await fetched(1);
    expect(oldest.subarray(0, length).equals(expected.subarray(0, length))).toBe(true);
    expect(oldest.length).toBe(segmentSize);
    expect(oldest.subarray(length).every((byte) => byte === 0)).toBe(true);
  }

  test.each([true, false])('in the segment where the archive ends, slot: %s', async (slot) => {
    const place = await start(slot);
    const { server, directory } = place;
    await writeWal(server, 1_200_000);
    await receiveAll(place, 1);
    // Not all of timeline 1 is in the archive.
    await writeWal(server, 20_000);
    await promotedTwice(server);
    const check = keep(runCli(['check', '-D', directory, '-d', server.conninfo(), '-w']));
    await check.exit;
    expect(unfolded(check.stdout)).toMatch(/archive is still on timeline 1, the server on 3/);
    await writeWal(server, 1_500_000);
    const run = await receiveAll(place, 3);
    expect(run.stderr).toMatch(/warning: .*timeline 2/);
    expect(run.stderr).not.toMatch(/gap:/);
    expect(existsSync(join(directory, '00000003.history'))).toBe(true);
    await isWhole(directory, server);
    // Said once: the next start is on the newest timeline.
    const again = await receiveAll(place, 3);
    expect(again.stderr).not.toMatch(/warning|error/);
  });

  test('some segments behind the end of the archive', async () => {
    const place = await start(false);
    const { server, directory } = place;
    await writeWal(server, 1_200_000);
    await receiveAll(place, 1);
    await writeWal(server, 3_500_000);
    await server.switchWal();
    await writeWal(server, 20_000);
    await promotedTwice(server);
    await writeWal(server, 1_500_000);
    await receiveAll(place, 3);
    await isWhole(directory, server);
  });

  test('a sink is told where the end of the timeline is, and gets it there', async () => {
    const { server } = await start(false);
    await writeWal(server, 20_000);
    await promotedTwice(server);
    const startLsn = floorToSegment(await forkPoint(server, 2), server.segmentSize);
    const chunks: Buffer[] = [];
    const from = (timeline?: number) =>
      streamWal(
        {
          ...{ connection: server.conninfo(), startLsn, endLsn: startLsn },
          ...(timeline === undefined ? {} : { timeline }),
        },
        {
          write: (chunk) => void chunks.push(chunk),
          flush: () => {},
        },
      );
    const hint = /begin at the same place with timeline 2/;
    await expect(from()).rejects.toMatchObject({
      code: 'WK_WAL_REMOVED',
      hint: expect.stringMatching(hint),
    });
    expect(chunks).toEqual([]);
    await from(2);
    const name = segmentFileName(3, segmentOf(startLsn, server.segmentSize), server.segmentSize);
    const expected = readFileSync(join(server.dataDir, 'pg_wal', name));
    const received = Buffer.concat(chunks);
    expect(received.length).toBeGreaterThan(0);
    expect(received.equals(expected.subarray(0, received.length))).toBe(true);
  });

  test('with no archive yet, from the slot on', async () => {
    const place = await start(true);
    const { server, directory } = place;
    await writeWal(server, 100_000);
    await promotedTwice(server);
    await writeWal(server, 1_500_000);
    await receiveAll(place, 3);
    await isWhole(directory, server);
  });
});
