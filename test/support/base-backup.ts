import { execFile } from 'node:child_process';
import { copyFile, mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Client } from 'pg';
import type { Major } from './binaries.js';
import { giveToServer, serverUser } from './scratch.js';

const run = promisify(execFile);

/** What a base backup leaves out (backup/basebackup.c: excludeDirContents, excludeFiles). */
const EMPTIED = new Set(['pg_wal', 'pg_replslot', 'pg_stat_tmp', 'pg_dynshmem', 'pg_notify']);
const LEFT_OUT = new Set([
  ...['postmaster.pid', 'postmaster.opts', 'backup_label', 'tablespace_map'],
  ...['standby.signal', 'recovery.signal', 'postgresql.auto.conf.tmp'],
]);

async function copyTree(source: string, target: string, top = true): Promise<void> {
  await mkdir(target, { mode: 0o700 });
  for (const entry of await readdir(source, { withFileTypes: true })) {
    if (top && LEFT_OUT.has(entry.name)) continue;
    const [from, to] = [join(source, entry.name), join(target, entry.name)];
    try {
      if (!entry.isDirectory()) await copyFile(from, to);
      else if (top && EMPTIED.has(entry.name)) await mkdir(to, { mode: 0o700 });
      else await copyTree(from, to, false);
    } catch (error) {
      // The server runs: what it removed meanwhile is put right by replaying the WAL.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }
}

/** Copies the data directory of a running server to `target` with the backup functions. */
export async function copyRunningServer(
  client: Client,
  major: Major,
  dataDir: string,
  target: string,
): Promise<void> {
  const [start, stop] =
    major >= 15
      ? ["pg_backup_start('walkeep', true)", 'pg_backup_stop(false)']
      : ["pg_start_backup('walkeep', true, false)", 'pg_stop_backup(false, false)'];
  await client.query(`SELECT ${start}`);
  await copyTree(dataDir, target);
  await mkdir(join(target, 'pg_wal', 'archive_status'), { mode: 0o700 });
  const { rows } = await client.query(`SELECT labelfile, spcmapfile FROM ${stop}`);
  await writeFile(join(target, 'backup_label'), rows[0].labelfile);
  if (rows[0].spcmapfile) await writeFile(join(target, 'tablespace_map'), rows[0].spcmapfile);
  if (serverUser.uid) await run('chown', ['-R', `${serverUser.uid}:${serverUser.gid}`, target]);
  else giveToServer(target);
}
