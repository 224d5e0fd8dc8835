import { join } from 'node:path';
import type { FileKind } from '../../files/file-system.js';
import type { RestoreFileSystem } from '../file-system.js';
import type { Layout } from '../layout.js';
import { isOwnName, MARKER } from '../marker.js';
import { DELTA_MARKER } from './marker.js';
import { OWN_FILES, SERVER_DIRECTORIES } from './own.js';
import type { Standing } from './standing.js';

type Kind = Exclude<FileKind, 'fifo'> | 'directory';

/** What is there, beside what is to be there. */
export interface Survey {
  /** Is to go: what the backup does not have, or has as something else, and is no file of people's. */
  stale: { path: string; kind: Kind }[];
  /**
   * What gets another name: files of configuration that the backup does not have, which would count if
   * they are included; and what people have where the backup has something of another kind.
   */
  foreign: string[];
  /** Directories and links that are as they are to be. */
  there: Set<string>;
  /** Bytes of each file that the backup has, too. */
  sizes: Map<string, number>;
}

/** As old pg_wal directories are called that a delta has put aside. */
export const OLD_WAL = /^pg_wal\.\d{8}T\d{6}Z$/;

export interface SurveyOptions {
  /** Of the backup. */
  layout: Layout;
  /** Of the backup, as PG_VERSION says it. */
  major: number;
  /** Files that are written beside those of the layout, whatever is there. */
  written: ReadonlySet<string>;
  /** pg_wal is as it is: it will be put aside. */
  keepWal: boolean;
  fs: RestoreFileSystem;
}

/**
 * Goes through the names in the server's directories. Links are followed to its own tablespaces and
 * its pg_wal, and there no further than to what a server of just this version makes.
 */
export async function survey(
  { dataDir, tablespaces, catalogVersion, resumed }: Standing,
  { layout, major, written, keepWal, fs }: SurveyOptions,
): Promise<Survey> {
  const expected = new Map<string, Kind>();
  for (const { path } of layout.directories) expected.set(path, 'directory');
  for (const { path } of layout.links) expected.set(path, 'link');
  for (const { path } of [...layout.files.flat(), ...layout.combined]) expected.set(path, 'file');
  for (const path of written) expected.set(path, 'file');
  const links = new Map(layout.links.map(({ path, to }) => [path, to]));
  const wal = join(dataDir, 'pg_wal');
  const version = `PG_${major}_${catalogVersion}`;
  const found: Survey = { stale: [], foreign: [], there: new Set(), sizes: new Map() };

  const isKept = (directory: string, name: string): boolean =>
    directory === dataDir &&
    (name === DELTA_MARKER ||
      (isOwnName(name) && !name.startsWith(MARKER)) ||
      // A backup of a server that went on behind an earlier delta may have what that put aside.
      (OLD_WAL.test(name) && !expected.has(join(directory, name))) ||
      (keepWal && name === 'pg_wal'));
  const isOwn = (directory: string, name: string, kind: Kind): boolean => {
    if (directory !== dataDir) return true;
    if (kind === 'directory' || SERVER_DIRECTORIES.includes(name)) {
      return SERVER_DIRECTORIES.includes(name);
    }
    return OWN_FILES.test(name) || name.startsWith('.walkeep-');
  };
  /** @param own whether all in it is PostgreSQL's */
  const visit = async (directory: string, own: boolean): Promise<void> => {
    for (const { name, kind } of await fs.readdir(directory)) {
      if (isKept(directory, name)) continue;
      const path = join(directory, name);
      const wanted = expected.get(path);
      const isOurs = own && isOwn(directory, name, kind);
      if (wanted === undefined) {
        if (isOurs) found.stale.push({ path, kind });
        else if (kind === 'directory') await visit(path, false);
        else if (name.endsWith('.conf')) found.foreign.push(path);
      } else if (wanted !== kind) {
        if (isOurs || kind === 'link') found.stale.push({ path, kind });
        else found.foreign.push(path);
      } else if (kind === 'directory') {
        found.there.add(path);
        await visit(path, isOurs);
      } else if (kind === 'link') {
        if ((await fs.readlink(path)) === links.get(path)) found.there.add(path);
        else found.stale.push({ path, kind });
      } else found.sizes.set(path, (await fs.stat(path))?.size ?? 0);
    }
  };
  /** In a tablespace there may be directories of other versions, of another cluster. */
  const visitVersion = async (root: string): Promise<void> => {
    const path = join(root, version);
    const kind = (await fs.stat(path))?.kind;
    if (kind === undefined) return;
    if (kind !== 'directory' || !expected.has(path)) {
      found.stale.push({ path, kind: kind === 'directory' ? kind : 'other' });
      return;
    }
    found.there.add(path);
    await visit(path, true);
  };
  // Of a tablespace that the backup does not have the directory is its owner's, and stays.
  const dropped = new Set([...tablespaces.values(), ...(resumed?.roots ?? [])]);
  for (const root of dropped) if (!layout.roots.includes(root)) await visitVersion(root);
  await visit(dataDir, true);
  const walDir = layout.links.find(({ path }) => path === wal)?.to;
  for (const root of layout.roots.slice(1)) {
    if ((await fs.stat(root))?.kind !== 'directory') continue;
    if (root !== walDir) await visitVersion(root);
    else if (!keepWal) await visit(root, true);
  }
  return found;
}

/** Bytes of what is there, of a directory with all in it. */
export async function bytesBelow(
  { path, kind }: Survey['stale'][0],
  fs: RestoreFileSystem,
): Promise<{ files: number; bytes: number }> {
  if (kind !== 'directory') {
    const size = kind === 'file' ? ((await fs.stat(path))?.size ?? 0) : 0;
    return { files: 1, bytes: size };
  }
  const total = { files: 0, bytes: 0 };
  for (const { name, kind } of await fs.readdir(path)) {
    const { files, bytes } = await bytesBelow({ path: join(path, name), kind }, fs);
    total.files += files;
    total.bytes += bytes;
  }
  return total;
}
