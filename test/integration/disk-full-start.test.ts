import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { SmallDisk } from '../chaos/small-disk.js';
import { disposer } from '../support/cleanup.js';
import { MAJORS, PostgresServer } from '../support/postgres.js';
import { receive, waitEqual, writeWal } from '../support/receiving.js';

const keep = disposer();

test.skipIf(MAJORS.length === 0)(
  'a receiver that starts on a full disk waits for space, with -n it ends',
  async (context) => {
    const { disk, why } = SmallDisk.create(0.0625);
    using _ = disk;
    if (why) context.skip(`no disk can be made full here: ${why}`);
    const server = keep(await PostgresServer.create({ major: MAJORS.at(-1)!, archive: true }));
    disk.fill(0);
    const once = keep(receive(disk.directory, server.conninfo(), ['-n']));
    expect((await once.exit).code).toBe(1);
    expect(once.stderr).toMatch(/error: could not lock directory .*: No space left on device\n/);
    const run = keep(receive(disk.directory, server.conninfo()));
    await run.waitForOutput(/No space left on device[\s\S]*disconnected; waiting \S+ seconds?/);
    disk.free();
    await run.waitForOutput(/starting log streaming/);
    await writeWal(server, 1_200_000);
    await waitEqual(disk.directory, server);
    expect(await run.stop()).toEqual({ code: 0, signal: null });
  },
);

test.skipIf(MAJORS.length === 0)(
  'it frees what a killed receiver left half compressed',
  async (context) => {
    const { disk, why } = SmallDisk.create(0.0625);
    using _ = disk;
    if (why) context.skip(`no disk can be made full here: ${why}`);
    const server = keep(await PostgresServer.create({ major: MAJORS.at(-1)!, archive: true }));
    const left = join(disk.directory, '.walkeep-000000010000000000000001.gz');
    writeFileSync(left, Buffer.alloc(20 * 1024 * 1024, 1));
    disk.fill(0);
    const run = keep(receive(disk.directory, server.conninfo()));
    await run.waitForOutput(/starting log streaming/);
    expect(existsSync(left)).toBe(false);
    expect(await run.stop()).toEqual({ code: 0, signal: null });
  },
);
