import { join } from 'node:path';
import type { BackupRecord } from '../base/backup-record.js';
import type { BaseIndex, Frame, IndexedMember, TarIndex } from '../base/base-index.js';
import { wholePath } from '../base/incremental.js';
import { TAR_BLOCK } from '../base/tar.js';
import { CorruptObjectError, NotSupportedError, UsageError } from '../errors.js';

/** Where a backup is put. Absolute paths. */
export interface Roots {
  dataDir: string;
  /** In the place of pg_wal, which becomes a link to it. */
  walDir?: string | undefined;
  /** PolarDB's second directory: what `data.tar` holds. */
  polarData?: string | undefined;
  /** By the oid of a tablespace that is not in place. */
  tablespaces: ReadonlyMap<number, string>;
}

export interface PlacedDirectory {
  path: string;
  mode: number;
}

export interface PlacedFile {
  path: string;
  mode: number;
  /** Bytes. */
  size: number;
  /** Of its content within the tar. */
  offset: number;
}

/** A file that an incremental backup has in part. */
export interface CombinedPlace {
  path: string;
  mode: number;
  /** Below the data directory of the server, as `CombinedFile.path`. */
  name: string;
}

/** What is made of a backup, and where. */
export interface Layout {
  /** Those that are one's own: each must be empty before. The data directory first. */
  roots: string[];
  /** Parents first; without the roots. */
  directories: PlacedDirectory[];
  links: { path: string; to: string }[];
  /** Of each tar, in the order of their contents. */
  files: PlacedFile[][];
  /** Of an incremental backup, what is made of its whole chain. */
  combined: CombinedPlace[];
  /** Those that make a server of it, each under the other name until all else is durable. */
  controls: { path: string; until: string }[];
  /** Bits of the roots: 0750 where the group may read the server's files. */
  mode: number;
}

/** Until all else is durable there is no file of the name that a server needs to start. */
const UNTIL = '.walkeep-restore';
const CONTROL = 'global/pg_control';

/**
 * What a tar of an old server, or of one that was restored itself, can have and a restored one must
 * not: signs of a process, of another recovery, and of a restore.
 */
const LEFT_OUT =
  /^(postmaster\.(pid|opts)|(recovery|standby)\.signal|recovery\.(conf|done)|(backup_label|tablespace_map)\.old|\.walkeep-(restore|lock|delta).*|pg_(replslot|stat_tmp|dynshmem|notify|subtrans)\/.*|(.*\/)?pgsql_tmp.*|pg_wal\/\.walkeep.*)$/;

/** @throws CorruptObjectError for a backup that cannot be put anywhere; UsageError without a place */
export function layoutOf(record: BackupRecord, index: BaseIndex, roots: Roots): Layout {
  const { dataDir, walDir, polarData, tablespaces } = roots;
  const layout: Layout = {
    ...{ roots: [dataDir], directories: [], links: [], files: [], combined: [], controls: [] },
    mode: modeOf(index),
  };
  if (walDir !== undefined) {
    layout.roots.push(walDir);
    layout.links.push({ path: join(dataDir, 'pg_wal'), to: walDir });
  }
  if (index.tars.some((tar) => tar.name === 'data.tar')) {
    if (polarData === undefined) {
      throw new UsageError('this backup of PolarDB has a second directory', {
        hint: 'Say where it goes with --polar-data DIR.',
      });
    }
    layout.roots.push(polarData);
  }
  const made = new Set<string>([dataDir]);
  const directory = (path: string, mode: number): void => {
    if (!made.has(path) && !layout.roots.includes(path)) layout.directories.push({ path, mode });
    made.add(path);
  };
  for (const { oid, inPlace } of record.tablespaces) {
    const link = join(dataDir, 'pg_tblspc', String(oid));
    directory(join(dataDir, 'pg_tblspc'), layout.mode);
    if (inPlace) directory(link, layout.mode);
    else {
      const to = tablespaces.get(oid) as string;
      layout.roots.push(to);
      layout.links.push({ path: link, to });
    }
  }
  const placing = { layout, directory, walDir, dataDir };
  for (const [i, tar] of index.tars.entries()) {
    const root = rootOf(record.tars[i] as BackupRecord['tars'][0], record, roots);
    const oid = record.tars[i]?.oid;
    const prefix = oid === undefined ? '' : `pg_tblspc/${oid}/`;
    const inner = record.parent === undefined ? placing : { ...placing, prefix };
    layout.files.push(placed(tar, root, inner));
  }
  // Not in the tar of a server whose pg_wal is a link, say.
  directory(join(walDir ?? join(dataDir, 'pg_wal')), layout.mode);
  directory(join(walDir ?? join(dataDir, 'pg_wal'), 'archive_status'), layout.mode);
  requireParents(layout, made);
  if (layout.controls.length === 0) {
    throw new CorruptObjectError(`backup ${record.id} has no ${CONTROL}`);
  }
  return layout;
}

function rootOf(tar: BackupRecord['tars'][0], record: BackupRecord, roots: Roots): string {
  if (tar.name === 'base.tar') return roots.dataDir;
  if (tar.name === 'data.tar') return roots.polarData as string;
  const space = record.tablespaces.find(({ oid }) => oid === tar.oid);
  if (!space) throw new CorruptObjectError(`backup ${record.id} has no tablespace of ${tar.name}`);
  if (space.inPlace) return join(roots.dataDir, 'pg_tblspc', String(space.oid));
  return roots.tablespaces.get(space.oid) as string;
}

interface Placing {
  layout: Layout;
  directory: (path: string, mode: number) => void;
  walDir: string | undefined;
  dataDir: string;
  /** Before the names of an incremental backup's tar. */
  prefix?: string;
}

function placed(tar: TarIndex, root: string, placing: Placing): PlacedFile[] {
  const { layout, directory, walDir, dataDir } = placing;
  const files: PlacedFile[] = [];
  for (const member of tar.members) {
    const name = nameOf(member);
    if (root === dataDir && LEFT_OUT.test(name)) continue;
    const inWal = root === dataDir && walDir !== undefined && /^pg_wal(\/|$)/.test(name);
    const path = inWal ? join(walDir, name.slice('pg_wal'.length)) : join(root, name);
    const whole = placing.prefix === undefined ? undefined : wholePath(member.name);
    if (whole !== undefined && member.type === 'file') {
      const { mode } = member;
      layout.combined.push({ path: wholePath(path) ?? path, mode, name: placing.prefix + whole });
    } else if (member.type === 'directory') directory(path, member.mode);
    else if (member.type === 'symlink') requireTablespace(member, layout, path);
    else {
      const file = {
        path,
        mode: member.mode,
        size: member.size,
        offset: member.offset + TAR_BLOCK,
      };
      if (name === CONTROL) {
        const until = `${path}${UNTIL}`;
        layout.controls.push({ path, until });
        files.push({ ...file, path: until });
      } else files.push(file);
    }
  }
  return files;
}

/** The links are made of what `backup.json` says; a server sends no other ones. */
function requireTablespace({ name }: IndexedMember, { links }: Layout, path: string): void {
  if (links.some((link) => link.path === path)) return;
  throw new CorruptObjectError(`the backup has a link "${name}" that is no tablespace's`);
}

/** @throws CorruptObjectError if something lies in a directory that the backup does not have */
function requireParents(
  { files, combined, controls, roots }: Layout,
  made: ReadonlySet<string>,
): void {
  const known = new Set([...made, ...roots]);
  for (const { path } of [...files.flat(), ...combined, ...controls]) {
    const parent = path.slice(0, path.lastIndexOf('/'));
    if (!known.has(parent)) throw new CorruptObjectError(`the backup has no directory "${parent}"`);
  }
}

/** The bytes of a name, latin1 in the index, as this system's calls take them. */
function nameOf({ name }: IndexedMember): string {
  const bytes = Buffer.from(name, 'latin1');
  const text = bytes.toString('utf8');
  if (Buffer.from(text, 'utf8').equals(bytes)) return text;
  throw new NotSupportedError(
    `the backup has a file whose name is no UTF-8: ${JSON.stringify(name)}`,
  );
}

/** By a file that every server has. */
function modeOf({ tars }: BaseIndex): number {
  const members = tars.find((tar) => tar.name === 'base.tar')?.members ?? [];
  const version = members.find(({ name, type }) => name === 'PG_VERSION' && type === 'file');
  return version && (version.mode & 0o040) !== 0 ? 0o750 : 0o700;
}

/** A part of a frame, and where it goes. */
export interface FilePart {
  path: string;
  mode: number;
  /** Within the frame's content. */
  from: number;
  length: number;
  /** Within the file. */
  at: number;
  /** It is the whole file, which is made now; others were made before. */
  whole: boolean;
}

/** What of a frame goes where. @param files of its tar */
export function partsOf(files: readonly PlacedFile[], frame: Frame): FilePart[] {
  const end = frame.offset + frame.length;
  const parts: FilePart[] = [];
  for (let i = firstFrom(files, frame.offset); i < files.length; i++) {
    const { path, mode, size, offset } = files[i] as PlacedFile;
    if (offset >= end && !(size === 0 && offset === end)) break;
    // The frame that has the last byte of an empty file's header makes it.
    const isHere = size === 0 && offset > frame.offset && offset <= end;
    if (size === 0 && !isHere) continue;
    const from = Math.max(offset, frame.offset);
    const to = Math.min(offset + size, end);
    const whole = size === 0 || (offset >= frame.offset && offset + size <= end);
    parts.push({
      path,
      mode,
      from: from - frame.offset,
      length: to - from,
      at: from - offset,
      whole,
    });
  }
  return parts;
}

/** The first file that may have something behind an offset. */
function firstFrom(files: readonly PlacedFile[], offset: number): number {
  let low = 0;
  let high = files.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    const file = files[middle] as PlacedFile;
    if (file.offset + file.size <= offset) low = middle + 1;
    else high = middle;
  }
  return low;
}
