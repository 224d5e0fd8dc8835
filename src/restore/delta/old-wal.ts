import { constants } from 'node:fs';
import fsp from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Catalog } from '../../archive/catalog.js';
import { identifySegment } from '../../archive/segment-identity.js';
import { TargetError } from '../../errors.js';
import { fsyncDir, readFully, storageError } from '../../files/durable.js';
import { OPEN_READ } from '../../files/file-system.js';
import type { RestoreFileSystem } from '../file-system.js';

/** Enough for the header of the first page. */
const HEADER = 8192;
const WAL_FILE = /^([0-9A-F]{24}(\.partial)?|[0-9A-F]{8}\.history)$/;

/**
 * Files of the WAL in a directory that the archive does not have, or not whole, in the order of their
 * WAL: they may be the only copy. Undefined: there is no WAL in it at all.
 */
export async function unarchivedIn(
  directory: string,
  {
    catalog,
    systemId,
    namesOnly = false,
    fs,
  }: {
    catalog: Catalog | undefined;
    systemId: bigint;
    namesOnly?: boolean;
    fs: RestoreFileSystem;
  },
): Promise<string[] | undefined> {
  if ((await fs.stat(directory))?.kind !== 'directory') return undefined;
  const entries = await fs.readdir(directory);
  const files = entries.filter(({ name, kind }) => kind === 'file' && WAL_FILE.test(name));
  if (files.length === 0) return undefined;
  if (namesOnly) return [];
  const stored = new Set(catalog?.histories.map(({ name }) => name));
  for (const { segments } of catalog?.timelines ?? []) {
    for (const { files } of segments) {
      for (const { name, partial } of files) if (!partial) stored.add(name.slice(0, 24));
    }
  }
  const names: string[] = [];
  for (const { name } of files) {
    if (stored.has(name)) continue;
    // Those that PostgreSQL has ready for what comes next still hold WAL of an earlier place.
    const isWal = name.endsWith('.history') || (await isItself(join(directory, name), name));
    if (isWal) names.push(name);
  }
  return names.sort();

  async function isItself(path: string, name: string): Promise<boolean> {
    const fd = await fs.open(path, OPEN_READ, 0).catch((e) => {
      throw storageError('open file', path, e);
    });
    try {
      const page = Buffer.alloc(HEADER);
      const length = await readFully(fs, fd, page, 0);
      const found = identifySegment(page.subarray(0, length), {
        ...{ name: name.slice(0, 24), systemId },
      });
      return found.state === 'this';
    } finally {
      await fs.close(fd);
    }
  }
}

/** Called by when it was put aside. */
export function stampOf(now: Date): string {
  return `${now.toISOString().slice(0, 19).replace(/[-:]/g, '')}Z`;
}

/**
 * The old pg_wal, or what it leads to, is put beside itself: it must not be the root of its file
 * system, and what it is in must be this user's to write to.
 * @param isLink pg_wal leads to it
 * @throws TargetError
 */
export async function requireMovable(directory: string, isLink: boolean): Promise<void> {
  const parent = dirname(directory);
  try {
    const [own, outer] = [await fsp.stat(directory), await fsp.stat(parent)];
    await fsp.access(parent, constants.W_OK);
    if (own.dev === outer.dev) return;
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code === 'ENOENT') return;
  }
  throw notMovable(directory, isLink);
}

function notMovable(directory: string, isLink: boolean, cause?: unknown): TargetError {
  const parent = dirname(directory);
  const hint = isLink
    ? 'Give another, empty directory with --waldir: the old one stays where it is.'
    : 'Mount it elsewhere and make pg_wal a link to that; then give another, empty directory with --waldir.';
  return new TargetError(
    `the old pg_wal in "${directory}" cannot be put aside within "${parent}"`,
    {
      ...{ path: directory, hint, cause },
    },
  );
}

/** Of a mount, also of one of the same file system, or what an overlay has from below. */
const NO_RENAME = ['EBUSY', 'EXDEV'];

/** @throws TargetError where the directory cannot be renamed, StorageError */
export async function putAside(
  { from, to, isLink }: { from: string; to: string; isLink: boolean },
  fs: RestoreFileSystem,
): Promise<void> {
  await fs.rename(from, to).catch((e) => {
    if (NO_RENAME.includes(e.code)) throw notMovable(from, isLink, e);
    throw storageError('rename directory', from, e);
  });
  await fsyncDir(dirname(to), fs);
}
