import { realpathSync } from 'node:fs';
import fsp from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { BackupRecord } from '../../base/backup-record.js';
import { NotSupportedError, TargetError } from '../../errors.js';
import { parseControlFile } from '../../server/control-file.js';
import type { Owner, RestoreFileSystem } from '../file-system.js';
import type { Layout } from '../layout.js';
import { rootState } from '../marker.js';
import { requireApart } from '../roots.js';
import { DELTA_MARKERS, type DeltaMarker } from './marker.js';
import { lookForServer } from './server.js';

/** What stands in a directory that a delta restore is to make what a backup has. */
export interface Standing {
  dataDir: string;
  systemId: bigint;
  catalogVersion: number;
  /** Of a delta restore that was cut short there, which goes on. */
  resumed: DeltaMarker | undefined;
  /** Where pg_wal leads, if it is a link. */
  walDir: string | undefined;
  /** Where tablespaces are that are not in place, by OID. */
  tablespaces: ReadonlyMap<number, string>;
  /** Its server is, or was when it ended, a standby. */
  isStandby: boolean;
  /** What PG_VERSION says. */
  major: string | undefined;
}

const CONTROL = 'global/pg_control';

/**
 * Undefined: there is nothing, or what a restore that is none of deltas left half done, which goes on.
 * @throws TargetError for what is no data directory, or a damaged one; StorageError
 */
export async function standingIn(
  dataDir: string,
  fs: RestoreFileSystem,
): Promise<Standing | undefined> {
  const state = await rootState(dataDir, fs);
  if (state === 'absent' || state === 'empty' || state === 'half') return undefined;
  if ((await fs.stat(dataDir))?.kind !== 'directory') {
    throw new TargetError(`"${dataDir}" is no directory`, { path: dataDir });
  }
  const marker = await DELTA_MARKERS.read(dataDir, fs);
  const major = (await textOf(join(dataDir, 'PG_VERSION'), fs))?.trim();
  const control = await controlIn(dataDir, fs);
  if (!control && !marker) throw noDataDirectory(dataDir, major);
  const walDir = await leadsTo(join(dataDir, 'pg_wal'), fs);
  const tablespaces = new Map<number, string>();
  const spaces = join(dataDir, 'pg_tblspc');
  if ((await fs.stat(spaces))?.kind === 'directory') {
    for (const { name, kind } of await fs.readdir(spaces)) {
      if (kind !== 'link' || !/^\d+$/.test(name)) continue;
      const to = await leadsTo(join(spaces, name), fs);
      if (to !== undefined) tablespaces.set(Number(name), to);
    }
  }
  // Where there are pg_control and pg_wal, a server may have been started on them since.
  const wal = await fs.stat(walDir ?? join(dataDir, 'pg_wal'));
  const resumed = control && wal ? undefined : marker;
  return {
    ...{ dataDir, walDir, tablespaces, major, resumed },
    systemId: control?.systemId ?? BigInt(marker?.systemId ?? 0),
    catalogVersion: control?.catalogVersion ?? marker?.catalogVersion ?? 0,
    isStandby: control ? await isStandby(dataDir, control.state === 'recovery', fs) : false,
  };
}

async function controlIn(dataDir: string, fs: RestoreFileSystem) {
  const path = join(dataDir, CONTROL);
  if (!(await fs.stat(path))) return undefined;
  const control = parseControlFile(await fs.readFile(path));
  if (control) return control;
  throw new TargetError(`"${path}" is damaged, or of a server that is not known here`, {
    path,
    hint: 'Nothing proves whose files these are. Restore into an empty directory.',
  });
}

function noDataDirectory(dataDir: string, major: string | undefined): TargetError {
  return new TargetError(
    major === undefined
      ? `directory "${dataDir}" is no data directory of PostgreSQL, and not empty`
      : `data directory "${dataDir}" has no ${CONTROL}`,
    {
      path: dataDir,
      hint: 'Nothing proves whose files these are. Restore into an empty directory.',
    },
  );
}

/** Who recovers to a target was restored; who is in recovery without one follows another server. */
async function isStandby(
  dataDir: string,
  inRecovery: boolean,
  fs: RestoreFileSystem,
): Promise<boolean> {
  if (await fs.stat(join(dataDir, 'standby.signal'))) return true;
  return inRecovery && !(await fs.stat(join(dataDir, 'recovery.signal')));
}

/** Without links; undefined for what is no link. */
async function leadsTo(path: string, fs: RestoreFileSystem): Promise<string | undefined> {
  if ((await fs.stat(path))?.kind !== 'link') return undefined;
  const to = await fs.readlink(path);
  const absolute = to.startsWith('/') ? to : join(dirname(path), to);
  try {
    return realpathSync(absolute);
  } catch {
    return absolute;
  }
}

async function textOf(path: string, fs: RestoreFileSystem): Promise<string | undefined> {
  return (await fs.stat(path))?.kind === 'file'
    ? (await fs.readFile(path)).toString('latin1')
    : undefined;
}

export interface Conditions {
  record: BackupRecord;
  layout: Layout;
  places: readonly string[];
  owner: Owner | undefined;
  /** Where tablespaces go, by OID. */
  tablespaces: ReadonlyMap<number, string>;
  /** It is to become a standby. */
  standby: boolean;
}

/**
 * All that refuses a delta. Nothing is written.
 * @returns what cannot be found out of servers at work there
 * @throws TargetError; NotSupportedError for backups of which files are not compared
 */
export async function requireDelta(
  standing: Standing,
  conditions: Conditions,
  fs: RestoreFileSystem,
): Promise<string[]> {
  const { record, layout, places } = conditions;
  const { dataDir } = standing;
  if (layout.controls.length !== 1 || record.tars.some(({ name }) => name === 'data.tar')) {
    throw new NotSupportedError('a delta of a backup of PolarDB cannot be restored', {
      hint: 'Restore into an empty directory.',
    });
  }
  requireCluster(standing, record);
  await requireOwner(standing, conditions);
  if (standing.isStandby && !conditions.standby) {
    throw new TargetError(`the server of "${dataDir}" is a standby`, {
      path: dataDir,
      hint: 'If it is to be made anew as a standby, say so with --standby; else restore into an empty directory.',
    });
  }
  requireApart(layout, places);
  await requireOwnRoots(standing, conditions, fs);
  return requireNoServer(standing);
}

function requireCluster({ dataDir, systemId, major }: Standing, record: BackupRecord): void {
  if (systemId !== record.systemId) {
    throw new TargetError(`"${dataDir}" is of another cluster than the backup`, {
      path: dataDir,
      expected: `system identifier ${record.systemId}`,
      actual: `system identifier ${systemId}`,
      detail: `System identifier ${systemId} there, ${record.systemId} in the backup.`,
      hint: 'Check the archive and the directory; nothing of another cluster is overwritten.',
    });
  }
  const expected = String(Math.floor(record.serverVersion / 10_000));
  // Of one that was cut short it may be the one file that is written just now.
  if (major !== undefined && major !== '' && major !== expected) {
    throw new TargetError(`"${dataDir}" is of PostgreSQL ${major}, the backup of ${expected}`, {
      path: dataDir,
      ...{ expected, actual: major, hint: 'Restore into an empty directory.' },
    });
  }
}

async function requireOwner({ dataDir }: Standing, { owner }: Conditions): Promise<void> {
  if (!owner) return;
  const found = await fsp.stat(dataDir);
  if (found.uid === owner.uid) return;
  throw new TargetError(`directory "${dataDir}" belongs to another user`, {
    path: dataDir,
    expected: `uid ${owner.uid}`,
    actual: `uid ${found.uid}`,
    hint: 'Leave --owner out, or restore into an empty directory.',
  });
}

/** Each tablespace, and pg_wal elsewhere, is this cluster's, or a directory that nobody uses. */
async function requireOwnRoots(
  { dataDir, resumed, walDir, tablespaces: there }: Standing,
  { layout, tablespaces }: Conditions,
  fs: RestoreFileSystem,
): Promise<void> {
  for (const [oid, to] of tablespaces) {
    const is = there.get(oid);
    if (is === undefined || is === to || resumed?.roots.includes(to)) continue;
    throw new TargetError(`tablespace ${oid} is in "${is}", and would be restored into "${to}"`, {
      path: join(dataDir, 'pg_tblspc', String(oid)),
      expected: to,
      actual: is,
      hint: `Map it to where it is, with -T OLD=${is}, or restore into an empty directory.`,
    });
  }
  const own = new Set([...there.values(), ...(resumed?.roots ?? [])]);
  if (walDir !== undefined) own.add(walDir);
  for (const root of layout.roots.slice(1)) {
    if (own.has(root)) continue;
    const state = await rootState(root, fs);
    if (state === 'absent' || state === 'empty') continue;
    throw new TargetError(`directory "${root}" is not empty, and none of the server's own`, {
      path: root,
      hint: 'Give another one, or move what is in it away: nothing of others is overwritten.',
    });
  }
}

/**
 * @returns what cannot be found out
 * @throws TargetError
 */
export async function requireNoServer({ dataDir, tablespaces }: Standing): Promise<string[]> {
  const { found, unseen } = await lookForServer(dataDir, [...tablespaces.values()]);
  if (found === undefined) return unseen;
  throw new TargetError(`a server runs in "${dataDir}": ${found}`, {
    path: dataDir,
    hint: `Stop it first: pg_ctl -D ${dataDir} stop. If that is not a server, end that process.`,
  });
}
