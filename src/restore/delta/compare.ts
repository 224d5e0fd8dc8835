import { posix } from 'node:path';
import { fileHash } from '../../archive/backups/file-hash.js';
import type { BackupManifest, ManifestAlgorithm, ManifestFile } from '../../base/manifest.js';
import { readFully, storageError } from '../../files/durable.js';
import { OPEN_OWN } from '../../files/file-system.js';
import type { RestoreFileSystem } from '../file-system.js';
import type { Layout, PlacedFile } from '../layout.js';

/** What a file must be for it to stay. */
export interface ExpectedFile {
  path: string;
  /** Bytes. */
  size: number;
  algorithm: ManifestAlgorithm;
  hex: string;
}

const CHUNK = 1024 * 1024;

/**
 * The files of a layout that can be compared, by what the manifest says of them: those that it does
 * not have, or without a checksum, or that are made of several backups, are written anew.
 * @param tablespaces where each is, by OID
 */
export function expectedFiles(
  { roots, links, files }: Layout,
  manifest: BackupManifest,
  tablespaces: ReadonlyMap<number, string>,
): ExpectedFile[] {
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
  return files.flat().flatMap((file) => {
    const found = known.get(nameOf(file));
    if (!found?.checksum || found.size !== file.size) return [];
    return [{ path: file.path, size: file.size, ...found.checksum }];
  });
}

/** True if a file has just this content. @throws StorageError if it cannot be read */
export async function isSame(
  { path, size, algorithm, hex }: ExpectedFile,
  fs: RestoreFileSystem,
): Promise<boolean> {
  const found = await fs.stat(path).catch((e) => {
    throw storageError('look at file', path, e);
  });
  if (found?.kind !== 'file' || found.size !== size) return false;
  const fd = await fs.open(path, OPEN_OWN, 0).catch((e) => {
    throw storageError('open file', path, e);
  });
  try {
    const digest = fileHash(algorithm);
    // The next bytes come while those are digested.
    const buffers = [Buffer.allocUnsafe(Math.min(CHUNK, size)), Buffer.alloc(0)];
    if (size > CHUNK) buffers[1] = Buffer.allocUnsafe(CHUNK);
    const read = (at: number, n: number) =>
      readFully(fs, fd, (buffers[n & 1] as Buffer).subarray(0, size - at), at);
    let next = size > 0 ? read(0, 0) : undefined;
    for (let at = 0, n = 0; at < size; n++) {
      const length = (await next) as number;
      if (length === 0) return false;
      const bytes = (buffers[n & 1] as Buffer).subarray(0, length);
      at += length;
      next = at < size ? read(at, n + 1) : undefined;
      digest.update(bytes);
    }
    return digest.digest() === hex;
  } catch (e) {
    throw storageError('read file', path, e);
  } finally {
    await fs.close(fd);
  }
}
