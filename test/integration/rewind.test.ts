import { spawnSync } from 'node:child_process';
import { readdirSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { disposer } from '../support/cleanup.js';
import { caughtUp } from '../support/failover.js';
import { copyPackage } from '../support/package-copy.js';
import { PostgresServer } from '../support/postgres.js';
import { writeWal } from '../support/receiving.js';
import { serverUser } from '../support/scratch.js';
import { findTool } from '../support/tools.js';
import { workload } from '../support/workload.js';

vi.setConfig({ testTimeout: 120_000 });

const keep = disposer();
const pgRewind = findTool('pg_rewind', 15);

test.skipIf(!pgRewind)(
  'pg_rewind 15 -c gets its WAL by a restore_command that reads ahead',
  async () => {
    const primary = keep(
      await PostgresServer.create({
        major: 15,
        archive: true,
        settings: { wal_log_hints: 'on' },
      }),
    );
    const standby = keep(await primary.createStandby());
    await workload(primary, { transactions: 3 });
    await caughtUp(primary, standby);
    await standby.promote();
    // pg_rewind takes the timeline from its last checkpoint.
    await standby.sql('CHECKPOINT');
    // What the old primary goes on with is its own: several segments, archived and recycled.
    await writeWal(primary, 6_500_000);
    await primary.waitArchived(await primary.switchWal());
    const path = `PATH=${dirname(process.execPath)}:$PATH`;
    const walkeep = join(copyPackage(), 'bin', 'walkeep');
    await primary.configure({
      restore_command: `${path} ${walkeep} fetch --prefetch 4 ${primary.archiveDir} %f %p`,
    });
    await primary.stop();
    const wal = join(primary.dataDir, 'pg_wal');
    const archived = new Set(readdirSync(primary.archiveDir));
    for (const name of readdirSync(wal)) if (archived.has(name)) rmSync(join(wal, name));

    const args = [
      '-c',
      '-D',
      primary.dataDir,
      `--source-server=${standby.conninfo({ dbname: 'postgres' })}`,
    ];
    const { status, stderr } = spawnSync(pgRewind!, args, {
      ...serverUser,
      encoding: 'utf8',
      cwd: primary.dataDir,
    });
    expect(stderr).toMatch(/pg_rewind: Done!/);
    expect(status).toBe(0);
    expect(readdirSync(wal).filter((name) => name.startsWith('.'))).toEqual([]);
  },
);
