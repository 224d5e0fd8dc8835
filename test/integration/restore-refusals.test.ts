import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { formatLsn, type Lsn, parseLsn } from '../../src/lsn.js';
import { segmentFileName, segmentOf } from '../../src/wal/file-name.js';
import { disposer } from '../support/cleanup.js';
import { cutOff } from '../support/failover.js';
import { below } from '../support/killed-at.js';
import { MAJORS, PostgresServer } from '../support/postgres.js';
import { archiveDirectory, receive, waitEqual } from '../support/receiving.js';
import { type Moment, RecordedRows } from '../support/recorded-rows.js';
import { handOver, walkeep, walkeepDone } from '../support/restoring.js';
import { scratchDir } from '../support/scratch.js';
import { waitFor } from '../support/wait.js';

vi.setConfig({ testTimeout: 180_000 });

const keep = disposer();
const PAIR = ([15, 18] as const).filter((major) => MAJORS.includes(major));

test.each(PAIR)(
  'what cannot be reached is refused before anything is written, %i',
  async (major) => {
    const server = keep(await PostgresServer.create({ major }));
    const standby = keep(await server.createStandby());
    const rows = new RecordedRows([undefined]);
    await rows.prepare(server);
    const archive = archiveDirectory();
    const receiver = keep(receive(archive, server.conninfo()));
    await receiver.waitForOutput(/starting log streaming/);
    await rows.commits(server, { most: 3 });
    const early = rows.last;
    const taken = await walkeepDone(['backup', '--json', '-d', server.conninfo(), archive]);
    const backup = JSON.parse(taken.stdout.trim().split('\n').at(-1) as string);
    for (let segments = 0; segments < 3; segments++) {
      await rows.commits(server, { most: 2 });
      await server.switchWal();
    }
    await rows.commits(server, { most: 1 });
    // What timeline 1 has behind this is on no way to timeline 2.
    await cutOff(server, standby);
    const shared = rows.last;
    for (let segments = 0; segments < 4; segments++) {
      await rows.commits(server, { most: 3 });
      await server.switchWal();
    }
    const abandoned = rows.last;
    await waitEqual(archive, server);
    await receiver.stop();
    await server.kill9();
    await standby.promote();
    const other = new RecordedRows([undefined]);
    other.moments.push({ ...shared });
    await other.commits(standby, { most: 4, timeline: 2 });
    const switched = await standby.switchWal();
    const follower = keep(receive(archive, standby.conninfo()));
    await follower.waitForOutput(/starting log streaming/);
    await waitFor(() => existsSync(join(archive, switched)), { what: 'the WAL of timeline 2' });
    const last = other.last;
    await follower.stop();

    handOver(archive);
    const dataDir = join(scratchDir('target', { forServer: true }), 'data');
    const refused = async (args: string[], code = 2): Promise<string> => {
      const before = JSON.stringify(below([archive]));
      for (const dry of [['--dry-run'], []]) {
        const ended = await walkeep(['restore', ...dry, ...args, archive, dataDir]);
        expect(ended.code, `${args}: ${ended.stdout}${ended.stderr}`).toBe(code);
        expect(existsSync(dataDir), `${args}`).toBe(false);
        if (dry.length === 0) {
          expect(JSON.stringify(below([archive]))).toBe(before);
          return ended.stderr;
        }
      }
      throw new Error('not reached');
    };
    const after = (lsn: string, bytes: bigint) => formatLsn((parseLsn(lsn) + bytes) as Lsn);
    const end = backup.end.lsn as string;

    // Before the first backup, and in it.
    expect(await refused(['--to', early.time])).toContain(end);
    expect(await refused(['--to', early.lsn])).toContain(end);
    expect(await refused(['--to', `xid:${early.xid}`])).toMatch(/hint/);
    expect(await refused(['--to', backup.start.lsn])).toContain(end);
    // In the second of its checkpoint, of which the WAL has no more than the second.
    expect(await refused(['--to', backup.start.time])).toContain(end);
    // Behind all there is.
    const beyond = await refused(['--to', '2100-01-01 00:00:00+00']);
    expect(beyond).toMatch(/latest/);
    expect(beyond).toMatch(/last commit/i);
    expect(await refused(['--to', after(last.lsn, 1n << 30n)])).toMatch(/latest/);
    // On timeline 1, behind where 2 left it: along that one it is reached.
    expect(await refused(['--to', abandoned.lsn])).toMatch(/--timeline 1/);
    expect(await refused(['--to', `xid:${abandoned.xid}`])).toMatch(/--timeline 1/);
    for (const to of [abandoned.lsn, `xid:${abandoned.xid}`]) {
      await walkeepDone(['restore', '-n', '--to', to, '--timeline', '1', archive, dataDir]);
    }
    expect(await refused(['--to', last.time, '--timeline', '1'])).toMatch(/--to latest/);
    // Nobody knows it.
    expect(await refused(['--to', 'name:never'])).toMatch(/never/);
    expect(await refused(['--to', 'xid:4000000000'])).toMatch(/4000000000/);
    expect(await refused(['--timeline', '7'], 1)).toMatch(/timelines: 1, 2/);
    expect(await refused(['--backup', '20200101T000000F-000000'], 1)).toContain(backup.id);

    // A hole on the way: what lies before it is reached, and nothing behind it, the end neither.
    const holed = segmentFileName(1, segmentOf(parseLsn(shared.lsn), 1 << 20) - 1n, 1 << 20);
    const before = rows.moments.findLast(
      ({ lsn }) => segmentFileName(1, segmentOf(parseLsn(lsn), 1 << 20), 1 << 20) < holed,
    ) as Moment;
    expect(parseLsn(before.lsn)).toBeGreaterThan(parseLsn(end));
    rmSync(join(archive, holed));
    const missing = formatLsn(((parseLsn(shared.lsn) / 0x100000n - 1n) * 0x100000n) as Lsn);
    await walkeepDone(['restore', '-n', '--to', before.lsn, archive, dataDir]);
    for (const to of [last.lsn, last.time, `xid:${last.xid}`, 'latest']) {
      const stderr = await refused(['--to', to]);
      expect(stderr, to).toContain(`WAL is missing: ${missing} `);
      expect(stderr, to).toMatch(/hint/);
    }
  },
);
