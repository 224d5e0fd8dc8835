import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, statSync, symlinkSync } from 'node:fs';
import { join, relative } from 'node:path';
import { type TakeBackupOptions, type TakenBackup, takeBackup } from '../../src/backup/backup.js';
import { parseTablespaceMap } from '../../src/base/label.js';
import { parseManifest } from '../../src/base/manifest.js';
import { connect } from '../../src/connection/connect.js';
import { settingsFor } from '../connection/fixtures.js';
import { checksumOf } from './checksum.js';
import type { PostgresServer } from './postgres.js';
import { scratchDir, serverUser } from './scratch.js';

/** A backup of a server of ours. */
export function backupOf(
  server: PostgresServer,
  place: string,
  options: Partial<TakeBackupOptions> = {},
): Promise<TakenBackup> {
  return takeBackup({
    place,
    connect: (replication, onNotice) => {
      const database = replication === 'off' ? { database: 'postgres' } : {};
      const settings = settingsFor('127.0.0.1', server.port, database);
      return connect(settings, { replication, onNotice });
    },
    ...options,
  });
}

const PROGRAM = { none: 'cat', gzip: 'gzip -dc', lz4: 'lz4 -dc', zstd: 'zstd -dc' };

/**
 * Restores a backup from a directory archive with the tools of the system alone, as the docs say.
 * Tablespaces are put into new directories. Gives the data directory.
 */
export function extractBackup(archive: string, { record }: Pick<TakenBackup, 'record'>): string {
  const dir = scratchDir('extracted', { forServer: true });
  const data = join(dir, 'data');
  const from = join(archive, 'backups', record.id);
  mkdirSync(data, { mode: 0o700 });
  for (const { name, oid } of [...record.tars].reverse()) {
    const tablespace = record.tablespaces.find((one) => one.oid === oid);
    let target = data;
    if (tablespace?.inPlace) {
      target = join(data, tablespace.location);
      mkdirSync(target, { recursive: true, mode: 0o700 });
    } else if (tablespace) {
      target = join(dir, `${oid}`);
      mkdirSync(target, { mode: 0o700 });
    }
    const glob = `"$1"/${name}${record.codec === 'none' ? '.[0-9]*' : `.*.[0-9]*`}`;
    const script = `cat ${glob} | ${PROGRAM[record.codec]} | tar -x -C "$2"`;
    execFileSync('sh', ['-c', script, 'sh', from, target]);
  }
  const map = parseTablespaceMap(readFileSync(join(data, 'tablespace_map'), { flag: 'a+' }));
  for (const { oid } of map) {
    symlinkSync(join(dir, `${oid}`), join(data, 'pg_tblspc', `${oid}`));
  }
  // Ours leads to the new places: without the map the server leaves the links as they are.
  execFileSync('rm', ['-f', join(data, 'tablespace_map')]);
  const { uid, gid } = serverUser;
  if (uid !== undefined) execFileSync('chown', ['-R', `${uid}:${gid}`, dir]);
  return data;
}

/** How what was extracted differs from its manifest. */
export function manifestDifferences(data: string, manifest: Buffer): string[] {
  const wrong: string[] = [];
  const { files } = parseManifest(manifest);
  const left = new Set(filesBelow(data));
  for (const { path, size, checksum } of files) {
    left.delete(path);
    // Removed by `extractBackup`.
    if (path === 'tablespace_map') continue;
    const content = readFileSync(join(data, path));
    const sum = checksum && checksumOf(checksum.algorithm as 'CRC32C' | 'SHA256', content);
    if (content.length !== size || sum !== checksum?.hex) wrong.push(path);
  }
  return [...wrong, ...left];
}

function filesBelow(root: string, dir = root): string[] {
  return readdirSync(dir).flatMap((name) => {
    const path = join(dir, name);
    return statSync(path).isDirectory() ? filesBelow(root, path) : [relative(root, path)];
  });
}
