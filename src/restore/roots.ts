import { realpathSync } from 'node:fs';
import { basename, dirname, isAbsolute, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { BackupRecord } from '../base/backup-record.js';
import { TargetError, UsageError } from '../errors.js';
import { DELTA_MARKER } from './delta/marker.js';
import type { RestoreFileSystem } from './file-system.js';
import type { Layout, Roots } from './layout.js';
import { MARKERS, type Marker, type RootState, rootState } from './marker.js';

export interface RootOptions {
  /** Absolute, as all paths here. */
  dataDir: string;
  walDir?: string | undefined;
  polarData?: string | undefined;
  /** Where tablespaces go, by where they were on the server. */
  tablespaces?: Readonly<Record<string, string>> | undefined;
  /** Below which all others go, each named by its OID. */
  tablespaceDir?: string | undefined;
}

/** @throws UsageError for a tablespace that the backup does not have, or a path that is relative */
export function rootsOf(record: BackupRecord, options: RootOptions): Roots {
  const { dataDir, walDir, polarData, tablespaces = {}, tablespaceDir } = options;
  const given = [dataDir, walDir, polarData, tablespaceDir, ...Object.values(tablespaces)];
  for (const path of given) {
    if (path !== undefined && !isAbsolute(path)) {
      throw new UsageError(`"${path}" is no absolute path`);
    }
  }
  const outer = record.tablespaces
    .filter(({ inPlace }) => !inPlace)
    .map(({ oid, location }) => ({ oid, location: pathOf(location) }));
  const known = outer.map(({ location }) => location);
  const other = Object.keys(tablespaces).find((old) => !known.includes(old));
  if (other !== undefined) {
    const there = known.length === 0 ? 'It has none.' : `It has ${known.join(', ')}.`;
    throw new UsageError(`the backup has no tablespace at "${other}"`, { hint: there });
  }
  return {
    ...{ dataDir, walDir, polarData },
    tablespaces: new Map(
      outer.map(({ oid, location }) => {
        const other = tablespaceDir === undefined ? location : join(tablespaceDir, `${oid}`);
        return [oid, realPath(tablespaces[location] ?? other)];
      }),
    ),
  };
}

/** The bytes of a path, latin1 in `backup.json`, as this system's calls take them. */
export function pathOf(location: string): string {
  return Buffer.from(location, 'latin1').toString('utf8');
}

/**
 * That nothing of anybody is overwritten: each directory is empty, not there, or a half restore's.
 * @returns the state of the data directory, and the marker of what is in it
 * @throws TargetError
 */
export async function requireFree(
  layout: Layout,
  places: readonly string[],
  fs: RestoreFileSystem,
): Promise<{ state: RootState; marker: Marker | undefined }> {
  const [dataDir, ...others] = layout.roots as [string, ...string[]];
  requireApart(layout, places);
  const state = await rootState(dataDir, fs);
  const marker =
    state === 'half' || state === 'complete' ? await MARKERS.read(dataDir, fs) : undefined;
  if (state === 'taken') throw await notFree(dataDir, fs);
  for (const root of others) {
    const one = await rootState(root, fs, marker?.token ?? '');
    if (one === 'taken' && state !== 'complete') throw await notFree(root, fs);
  }
  return { state, marker };
}

/** @throws TargetError for directories that are in each other, or in an archive */
export function requireApart({ roots }: Layout, places: readonly string[]): void {
  for (const root of roots) {
    requireOutside(root, places);
    const inner = roots.find((one) => one !== root && isWithin(one, root));
    const twice = roots.filter((one) => one === root).length > 1;
    if (inner !== undefined || twice) {
      throw new TargetError(`"${inner ?? root}" is used for two things`, {
        path: root,
        hint: 'Give each tablespace, and pg_wal, a directory of its own outside the others.',
      });
    }
  }
}

async function notFree(path: string, fs: RestoreFileSystem): Promise<TargetError> {
  if ((await fs.stat(path))?.kind !== 'directory') {
    return new TargetError(`"${path}" is no directory`, { path, hint: 'Give another one.' });
  }
  if (await fs.stat(join(path, DELTA_MARKER))) {
    return new TargetError(`a delta restore was cut short in "${path}"`, {
      path,
      hint: 'Go on with it: run it again with --delta.',
    });
  }
  return new TargetError(`directory "${path}" is not empty`, {
    path,
    hint: 'Restore into another one, or move what is in it away: nothing is overwritten. If it is the data directory of the server that was lost: --delta.',
  });
}

/** @throws TargetError for a directory within an archive, or around it */
function requireOutside(root: string, places: readonly string[]): void {
  for (const place of places) {
    if (/^[a-z][a-z0-9+.-]+:\/\//i.test(place) && !/^file:/i.test(place)) continue;
    const archive = realPath(/^file:/i.test(place) ? fileURLToPath(place) : place);
    const real = realPath(root);
    if (!isWithin(real, archive) && !isWithin(archive, real)) continue;
    throw new TargetError(`"${root}" and the archive "${place}" are in each other`, {
      path: root,
      hint: 'Restore into a directory outside the archive.',
    });
  }
}

function isWithin(path: string, directory: string): boolean {
  return path === directory || path.startsWith(`${directory.replace(/\/$/, '')}/`);
}

/** Without links, also of what is not there yet. */
export function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    const parent = dirname(path);
    return parent === path ? path : join(realPath(parent), basename(path));
  }
}
