import type { BaseIndex } from '../../base/base-index.js';
import { incrementalPath, wholePath } from '../../base/incremental.js';
import { parseManifest } from '../../base/manifest.js';
import { TAR_BLOCK, type TarMember } from '../../base/tar.js';
import { mainFileOf, mapFileOf } from '../../base/visibility-map.js';
import { CorruptObjectError } from '../../errors.js';
import type { BackupReader, Piece } from '../backups/reader.js';
import type { Chain } from './chain.js';
import type { CombinedFile, FileSource } from './source.js';

const MANIFEST = 'backup_manifest';

/**
 * What each file that the last backup of a chain has in part is made of: what that has, and of the
 * backups before it what they have, up to the first that has it whole. A file that the last one does
 * not have is no more. Indexes and manifests are read one backup after the other, and not kept.
 * @returns in the order in which the full backup has them
 * @throws CorruptObjectError that names a file that is not there, and the backup
 */
export async function planChain(
  { readers }: Pick<Chain, 'readers'>,
  signal?: AbortSignal,
): Promise<CombinedFile[]> {
  const files = new Map<string, CombinedFile>();
  /** Those of which no full version was found yet. */
  const open = new Map<string, FileSource[]>();
  for (let backup = readers.length - 1; backup >= 0; backup--) {
    const reader = readers[backup] as BackupReader;
    const index = await reader.index(signal);
    const found = new Map<string, FileSource>();
    const isLast = backup === readers.length - 1;
    if (isLast) {
      for (const { path } of membersOf(reader, index)) {
        const whole = wholePath(path);
        if (whole === undefined) continue;
        const file: CombinedFile = { path: whole, sources: [] };
        files.set(whole, file);
        open.set(whole, file.sources);
      }
    }
    const mains = isLast ? mainsOf(files) : undefined;
    const at = locator(reader, index, backup);
    for (const { path, tar, member } of membersOf(reader, index)) {
      const whole = wholePath(path);
      const sources = open.get(whole ?? path);
      const main = mains && mainFileOf(path);
      const inMap = main && mains?.get(main.relation);
      if (!sources && !inMap) continue;
      const source = at(tar, member, path, whole === undefined ? 'full' : 'incremental');
      if (sources) {
        if (sources.at(-1)?.backup === backup) throw twice(whole ?? path, reader);
        sources.push(source);
        found.set(path, source);
      } else if (main && inMap) inMap[main.segment] = [source];
    }
    await takeDigests(reader, found, signal);
    for (const [path, sources] of open) {
      if (sources.at(-1)?.backup !== backup) throw missing(path, reader);
      if (sources.at(-1)?.kind === 'full') open.delete(path);
      else if (backup === 0) throw noFull(path, reader);
    }
    if (mains) addMains(files, mains);
  }
  for (const file of files.values()) if (file.map) file.map.main = file.map.main.map(withoutFull);
  return [...files.values()].sort(byPlace);
}

/** The blocks of a table that come from the full backup are not asked: no map is older. */
function withoutFull(sources: FileSource[] | undefined): FileSource[] | undefined {
  return sources?.map((source) => (source.backup === 0 ? { ...source, pieces: [] } : source));
}

/** A file of a backup. */
export interface Placed {
  /** Below the data directory. */
  path: string;
  /** Number of its tar. */
  tar: number;
  member: TarMember;
}

export function* membersOf({ record }: BackupReader, { tars }: BaseIndex): Generator<Placed> {
  for (const [tar, { members }] of tars.entries()) {
    const oid = record.tars[tar]?.oid;
    const root = oid === undefined ? '' : `pg_tblspc/${oid}/`;
    for (const member of members) {
      if (member.type === 'file') yield { path: `${root}${member.name}`, tar, member };
    }
  }
}

/** For each table of which a file of its map is combined, room for the files of the table itself. */
function mainsOf(files: ReadonlyMap<string, CombinedFile>): Map<string, FileSource[][]> {
  const mains = new Map<string, FileSource[][]>();
  for (const path of files.keys()) {
    const map = mapFileOf(path);
    if (map) mains.set(map.relation, []);
  }
  return mains;
}

/** Files of the table that are combined too have the same sources, which are still to come. */
function addMains(
  files: ReadonlyMap<string, CombinedFile>,
  mains: ReadonlyMap<string, FileSource[][]>,
): void {
  for (const [path, { sources }] of files) {
    const main = mainFileOf(path);
    const all = main && mains.get(main.relation);
    if (main && all) all[main.segment] = sources;
  }
  for (const [path, file] of files) {
    const map = mapFileOf(path);
    if (map) file.map = { segment: map.segment, main: mains.get(map.relation) ?? [] };
  }
}

/** What has the content of a member. */
export function locator(reader: BackupReader, index: BaseIndex, backup: number) {
  const byTar = new Map<string, Piece[]>();
  for (const piece of reader.pieces(index)) {
    const own = byTar.get(piece.tar);
    if (own) own.push(piece);
    else byTar.set(piece.tar, [piece]);
  }
  return (
    tar: number,
    { offset: header, size }: TarMember,
    path: string,
    kind: FileSource['kind'],
  ): FileSource => {
    const all = byTar.get(index.tars[tar]?.name ?? '') ?? [];
    const offset = header + TAR_BLOCK;
    const pieces: Piece[] = [];
    for (let i = firstBehind(all, offset); i < all.length && size > 0; i++) {
      const piece = all[i] as Piece;
      const frames = piece.frames.filter(
        (f) => f.offset < offset + size && f.offset + f.length > offset,
      );
      if (frames.length === 0) break;
      pieces.push(frames.length === piece.frames.length ? piece : { ...piece, frames });
    }
    return { backup, path, kind, size, offset, checksum: undefined, pieces };
  };
}

/** The first piece that ends behind an offset. */
function firstBehind(pieces: readonly Piece[], offset: number): number {
  let low = 0;
  let high = pieces.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    const last = pieces[middle]?.frames.at(-1);
    if (last && last.offset + last.length > offset) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** @throws CorruptObjectError for a file that is not in the manifest, or is there with another size */
async function takeDigests(
  reader: BackupReader,
  sources: ReadonlyMap<string, FileSource>,
  signal: AbortSignal | undefined,
): Promise<void> {
  const bytes = await reader.content(MANIFEST, signal);
  const left = new Map(sources);
  for (const { path, size, checksum } of parseManifest(bytes, reader.key(MANIFEST)).files) {
    const source = left.get(path);
    if (!source) continue;
    left.delete(path);
    if (source.size !== size || !checksum) {
      throw corrupt(reader, path, `has ${source.size} bytes, in its manifest ${size}`);
    }
    source.checksum = checksum;
  }
  for (const path of left.keys()) throw corrupt(reader, path, 'is not in its manifest');
}

/** Neighbours in the full backup have frames in common. Maps, which read their tables, come last. */
function byPlace(a: CombinedFile, b: CombinedFile): number {
  if ((a.map === undefined) !== (b.map === undefined)) return a.map ? 1 : -1;
  const [one, other] = [a.sources.at(-1), b.sources.at(-1)];
  if (!one || !other || one.backup !== other.backup) {
    return (one?.backup ?? 0) - (other?.backup ?? 0);
  }
  const [tar = '', otherTar = ''] = [one.pieces[0]?.tar, other.pieces[0]?.tar];
  return tar === otherTar ? one.offset - other.offset : tar < otherTar ? -1 : 1;
}

function missing(path: string, reader: BackupReader): CorruptObjectError {
  const what = incrementalPath(path);
  return corrupt(reader, path, `is not there, and ${what} of a later backup needs it`);
}

function noFull(path: string, reader: BackupReader): CorruptObjectError {
  return corrupt(reader, incrementalPath(path), 'is there in part, and in no backup whole');
}

function twice(path: string, reader: BackupReader): CorruptObjectError {
  return corrupt(reader, path, 'is there whole and in part');
}

function corrupt(reader: BackupReader, path: string, why: string): CorruptObjectError {
  const name = Buffer.from(path, 'latin1').toString();
  return new CorruptObjectError(`"${name}" of backup ${reader.record.id} ${why}`, {
    key: reader.key('base.index'),
    hint: 'Restore an earlier backup, and take a full one: this chain cannot be combined.',
  });
}
