import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { parseBackupRecord } from '../../src/base/backup-record.js';
import { disposer } from '../support/cleanup.js';
import { copyPackage } from '../support/package-copy.js';
import { MAJORS, type Major, PostgresServer } from '../support/postgres.js';
import { archiveDirectory, receive } from '../support/receiving.js';
import { giveToServer, serverUser } from '../support/scratch.js';
import { backupOf, extractBackup, manifestDifferences } from '../support/taken-backup.js';
import { waitFor } from '../support/wait.js';
import { workload } from '../support/workload.js';

vi.setConfig({ testTimeout: 120_000 });

const keep = disposer();

let shared: string | undefined;
/** restore_command of the package, as the servers' user runs it. */
function restoreCommand(archive: string): string {
  shared ??= copyPackage();
  const bin = join(shared, 'bin', 'walkeep');
  return `PATH=${dirname(process.execPath)}:$PATH ${bin} fetch ${archive} %f %p`;
}

function handOver(archive: string): void {
  const { uid, gid } = serverUser;
  if (uid !== undefined) execFileSync('chown', ['-R', `${uid}:${gid}`, archive]);
}

/** A server with two tablespaces, and one in place where the server can have that in a backup. */
async function serverWithTablespaces(major: Major): Promise<PostgresServer> {
  const server = keep(
    await PostgresServer.create({
      major,
      initdbArgs: ['--data-checksums'],
      // Without it no server recovers that has one in place.
      ...(major >= 17 ? { settings: { allow_in_place_tablespaces: 'on' } } : {}),
    }),
  );
  for (const name of ['one', 'zwei ü']) {
    const dir = join(server.dir, name);
    mkdirSync(dir);
    giveToServer(dir);
    await server.sql(`CREATE TABLESPACE "${name}" LOCATION '${dir}'`);
    await server.sql(`CREATE TABLE "t ${name}" TABLESPACE "${name}" AS
      SELECT i, repeat('x', 200) AS t FROM generate_series(1, 10000) i`);
  }
  if (major >= 17) {
    const client = await server.client();
    await client.query("CREATE TABLESPACE here LOCATION ''");
    await client.query('CREATE TABLE t_here TABLESPACE here AS SELECT generate_series(1, 5000) i');
    await client.end();
  }
  return server;
}

const DIGEST = `SELECT (SELECT count(*) || ' ' || coalesce(max(id), 0) FROM committed) || ' ' ||
  (SELECT md5(coalesce(string_agg(w::text, '' ORDER BY id, n), '')) FROM work w) || ' ' ||
  (SELECT sum(i) FROM "t one") || ' ' || (SELECT sum(i) FROM "t zwei ü") AS digest`;

test.each(MAJORS)(
  'a backup of a busy PostgreSQL %i is restored with tar, and recovers from the archive',
  async (major) => {
    const server = await serverWithTablespaces(major);
    const archive = archiveDirectory();
    const receiver = keep(receive(archive, server.conninfo()));
    await receiver.waitForOutput(/starting log streaming/);
    await workload(server, { transactions: 5 });
    const stop = new AbortController();
    const busy = workload(server, { transactions: 10_000, signal: stop.signal });
    const phases = new Set<string>();
    const taken = await backupOf(server, archive, {
      compression: { method: (['none', 'lz4', 'gzip', 'none', 'gzip'] as const)[major - 14]! },
      onProgress: ({ phase }) => phases.add(phase),
    });
    stop.abort();
    await busy;
    const { record } = taken;
    const stored = readFileSync(join(archive, 'backups', taken.id, 'backup.json'));
    expect(parseBackupRecord(stored)).toEqual(record);
    expect(record).toMatchObject({
      from: 'primary',
      label: taken.id,
      warnings: [],
      wal: 'archive',
    });
    expect(record.tablespaces.map(({ inPlace }) => inPlace).sort()).toEqual(
      major >= 17 ? [false, false, true] : [false, false],
    );
    const data = extractBackup(archive, taken);
    const manifest = readFileSync(join(archive, 'backups', taken.id, 'backup_manifest'));
    expect(manifestDifferences(data, manifest)).toEqual([]);

    const digest = (await server.sql(DIGEST))[0]?.digest;
    await server.switchWal();
    await server.stop();
    receiver.child.kill('SIGINT');
    await receiver.exit;
    handOver(archive);
    const restored = keep(
      await server.recoverFrom({
        backup: data,
        restoreCommand: restoreCommand(archive),
        targetSettings: { recovery_target_action: 'promote' },
      }),
    );
    await waitFor(
      async () => (await restored.sql('SELECT pg_is_in_recovery() AS r'))[0]?.r === false,
      {
        what: 'the end of recovery',
      },
    );
    expect((await restored.sql(DIGEST))[0]?.digest).toBe(digest);
  },
);
