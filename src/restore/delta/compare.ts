import { posix } from 'node:path';
import { fileHash } from '../../archive/backups/file-hash.js';
import type { BackupRecord } from '../../base/backup-record.js';
import type { BaseIndex, Frame } from '../../base/base-index.js';
import type { BackupManifest, ManifestAlgorithm, ManifestFile } from '../../base/manifest.js';
import { readFully, storageError } from '../../files/durable.js';
import { OPEN_OWN } from '../../files/file-system.js';
import type { RestoreFileSystem } from '../file-system.js';
import type { Layout, PlacedFile } from '../layout.js';
import { isServersOwn } from './own.js';

/** What a file must be for it to stay. */
export interface ExpectedFile {
  path: string;
  /** Bytes. */
  size: number;
  /** Of all of it; absent where nothing tells: it is made of several backups, say. */
  checksum?: { algorithm: ManifestAlgorithm; hex: string } | undefined;
  /** Parts of a large one that are read by themselves, in their order; of the rest nothing is known. */
  parts: ExpectedPart[];
}

export interface ExpectedPart {
  /** Within the file. */
  at: number;
  length: number;
  /** In hex. */
  sha256: string;
}

/** What of a file stays: all of it, or the parts that begin at these places. */
export interface SameFile {
  path: string;
  parts: 'all' | number[];
}

const CHUNK = 1024 * 1024;

/**
 * What is known of the files of a layout: by the manifest of each as a whole, by the index of the
 * frames that have nothing but a part of one. Those of which nothing is known are left out.
 * @param tablespaces where each is, by OID
 */
export function expectedFiles(
  layout: Layout,
  {
    index,
    manifest,
    codec,
  }: Pick<BackupRecord, 'codec'> & { index: BaseIndex; manifest: BackupManifest },
  tablespaces: ReadonlyMap<number, string>,
): ExpectedFile[] {
  const { roots, links, files } = layout;
  const [dataDir] = roots as [string];
  const known = new Map(manifest.files.map((file): [string, ManifestFile] => [file.path, file]));
  const bases: [string, string][] = [...tablespaces].map(([oid, to]) => [to, `pg_tblspc/${oid}/`]);
  const walDir = links.find(({ path }) => path === posix.join(dataDir, 'pg_wal'))?.to;
  if (walDir !== undefined) bases.push([walDir, 'pg_wal/']);
  bases.push([dataDir, '']);
  const nameOf = ({ path }: PlacedFile): string => {
    const [root, prefix] = bases.find(([root]) => path.startsWith(`${root}/`)) as [string, string];
    return Buffer.from(`${prefix}${path.slice(root.length + 1)}`, 'utf8').toString('latin1');
  };
  return files.flatMap((tar, i) => {
    const parts = partsWithin(tar, index.tars[i]?.frames ?? [], codec);
    return tar.flatMap((file) => {
      const found = known.get(nameOf(file));
      const checksum = found?.size === file.size ? found.checksum : undefined;
      const own = isServersOwn(file.path, layout) ? (parts.get(file) ?? []) : [];
      if (!checksum && own.length === 0) return [];
      return [{ path: file.path, size: file.size, checksum, parts: own }];
    });
  });
}

/** Of each file the frames that have nothing else, where it is known what they hold. */
function partsWithin(
  files: readonly PlacedFile[],
  frames: readonly Frame[],
  codec: BackupRecord['codec'],
): Map<PlacedFile, ExpectedPart[]> {
  const found = new Map<PlacedFile, ExpectedPart[]>();
  let n = 0;
  for (const { offset, length, sha256, ...frame } of frames) {
    const content = codec === 'none' ? sha256 : frame.content;
    if (content === undefined) continue;
    const behind = (file: PlacedFile | undefined) =>
      file !== undefined && file.offset + file.size < offset + length;
    while (behind(files[n])) n++;
    const file = files[n];
    if (!file || file.offset > offset) continue;
    const part = { at: offset - file.offset, length, sha256: content };
    const parts = found.get(file);
    if (parts) parts.push(part);
    else found.set(file, [part]);
  }
  return found;
}

/** What of a file is as it must be; undefined: nothing. @throws StorageError if it cannot be read */
export async function sameIn(
  { path, size, checksum, parts }: ExpectedFile,
  fs: RestoreFileSystem,
): Promise<SameFile | undefined> {
  const found = await fs.stat(path).catch((e) => {
    throw storageError('look at file', path, e);
  });
  if (found?.kind !== 'file') return undefined;
  // By another name of it somebody may keep it as it is.
  const inPlace = found.links === 1 ? parts : [];
  const isWhole = checksum !== undefined && found.size === size;
  if (!isWhole && inPlace.length === 0) return undefined;
  const fd = await fs.open(path, OPEN_OWN, 0).catch((e) => {
    throw storageError('open file', path, e);
  });
  try {
    let same: number[] | undefined;
    if (isWhole) {
      const { algorithm, hex } = checksum;
      // 32 bits are no proof of gigabytes: what has a stronger digest must have that, too.
      const proven = algorithm === 'CRC32C' ? parts : [];
      const read = await digestsIn(fd, { size, algorithm, parts: proven }, fs);
      if (read?.digest === hex && read.same.length === proven.length) return { path, parts: 'all' };
      if (proven.length > 0) same = read?.same ?? [];
    }
    if (inPlace.length === 0) return undefined;
    same ??= await sameParts(fd, inPlace, found.size, fs);
    return same.length === 0 ? undefined : { path, parts: same };
  } catch (e) {
    throw storageError('read file', path, e);
  } finally {
    await fs.close(fd);
  }
}

/** Those of the parts of a file of that size that are as they must be. */
async function sameParts(
  fd: number,
  parts: readonly ExpectedPart[],
  size: number,
  fs: RestoreFileSystem,
): Promise<number[]> {
  const same: number[] = [];
  for (const part of parts) {
    if (part.at + part.length > size) break;
    const digest = fileHash('SHA256');
    const isThere = await readRange(fd, part, (bytes) => digest.update(bytes), fs);
    if (isThere && digest.digest() === part.sha256) same.push(part.at);
  }
  return same;
}

/** Reads a file once, for the digest of all of it and those of its parts; undefined: it is shorter. */
async function digestsIn(
  fd: number,
  {
    size,
    algorithm,
    parts,
  }: { size: number; algorithm: ManifestAlgorithm; parts: readonly ExpectedPart[] },
  fs: RestoreFileSystem,
): Promise<{ digest: string; same: number[] } | undefined> {
  const whole = fileHash(algorithm);
  const same: number[] = [];
  let own = fileHash('SHA256');
  let [at, n] = [0, 0];
  const take = (bytes: Uint8Array): void => {
    whole.update(bytes);
    const end = at + bytes.length;
    for (let part = parts[n]; part && part.at < end; part = parts[n]) {
      const until = part.at + part.length;
      own.update(bytes.subarray(Math.max(0, part.at - at), until - at));
      if (until > end) break;
      if (own.digest() === part.sha256) same.push(part.at);
      own = fileHash('SHA256');
      n++;
    }
    at = end;
  };
  const isThere = await readRange(fd, { at: 0, length: size }, take, fs);
  return isThere ? { digest: whole.digest(), same } : undefined;
}

/** False where the file is shorter. */
async function readRange(
  fd: number,
  { at: from, length }: { at: number; length: number },
  take: (bytes: Uint8Array) => void,
  fs: RestoreFileSystem,
): Promise<boolean> {
  // The next bytes come while those are digested.
  const buffers = [Buffer.allocUnsafe(Math.min(CHUNK, length)), Buffer.alloc(0)];
  if (length > CHUNK) buffers[1] = Buffer.allocUnsafe(CHUNK);
  const read = (done: number, n: number) =>
    readFully(fs, fd, (buffers[n & 1] as Buffer).subarray(0, length - done), from + done);
  let next = length > 0 ? read(0, 0) : undefined;
  for (let done = 0, n = 0; done < length; n++) {
    const got = (await next) as number;
    if (got === 0) return false;
    const bytes = (buffers[n & 1] as Buffer).subarray(0, got);
    done += got;
    next = done < length ? read(done, n + 1) : undefined;
    take(bytes);
  }
  return true;
}
