import { lstat, mkdir, open, readdir, rename, rm, rmdir, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { fsyncError } from './durable.js';
import { linkAnew } from './hard-link.js';
import { giveDirectory, giveFile } from './owner.js';
import type { ProcessIdentity } from './process-identity.js';
import { readRegular } from './regular-file.js';

/**
 * A lock is a file that names its owner. Where the file system has no hard links it is a directory
 * with that file in it: the rename of a directory onto one that is not empty fails, as a link to a
 * name that is taken does. An empty one is what a crash left of a lock that was being given up.
 */
const OWNER = 'owner';

/** Writes a new file durably: an empty lock after a power loss would name nobody. */
export async function writeIdentity(path: string, identity: ProcessIdentity): Promise<void> {
  const handle = await open(path, 'wx', 0o600);
  try {
    giveFile(handle.fd, path);
    await handle.writeFile(`${JSON.stringify(identity)}\n`);
    await handle.sync().catch((e) => {
      throw fsyncError(path, e);
    });
  } finally {
    await handle.close();
  }
}

/** The owner that a lock names; undefined if there is none or it names none. */
export async function readIdentity(path: string): Promise<ProcessIdentity | undefined> {
  try {
    const content = await readRegular(path, { follow: false }).catch((e) => {
      if ((e as NodeJS.ErrnoException).code !== 'EFTYPE') throw e;
      return readRegular(join(path, OWNER), { follow: false });
    });
    return parseIdentity(content.toString());
  } catch {
    return undefined;
  }
}

/** What a lock says of its owner; undefined if it is none of ours. */
export function parseIdentity(text: string): ProcessIdentity | undefined {
  try {
    const value = JSON.parse(text);
    // The token becomes part of a file name.
    const valid = /^[0-9a-f-]{36}$/.test(value.token) && Number.isInteger(value.pid);
    return valid && value.pid > 0 ? value : undefined;
  } catch {
    return undefined;
  }
}

/** Puts a lock at `path` unless one is there: false then. `staged` is a file that names its owner. */
export async function putLock(
  staged: string,
  path: string,
  identity: ProcessIdentity,
): Promise<boolean> {
  const linked = await linkAnew(staged, path);
  if (linked !== 'no links') return linked === 'done';
  const directory = `${staged}.dir`;
  try {
    await mkdir(directory, { mode: 0o700 });
    giveDirectory(directory);
    await writeIdentity(join(directory, OWNER), identity);
    return await renameLock(directory, path);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/**
 * Puts a lock in the place of another one that nobody else may touch, or of none. False where the
 * file system cannot do that in one step; nothing has happened then.
 */
export async function renameLock(from: string, to: string): Promise<boolean> {
  try {
    await rename(from, to);
    return true;
  } catch (e) {
    const inTheWay = ['ENOTEMPTY', 'EEXIST', 'ENOTDIR', 'EISDIR'];
    if (inTheWay.includes((e as NodeJS.ErrnoException).code ?? '')) return false;
    throw e;
  }
}

/** Removes a lock of either kind. What somebody else has put into its place meanwhile stays. */
export async function removeLock(path: string): Promise<void> {
  const found = await lstat(path).catch(() => undefined);
  if (!found?.isDirectory()) return rm(path, { force: true });
  await unlink(join(path, OWNER)).catch(unless('ENOENT'));
  await rmdir(path).catch(unless('ENOENT', 'ENOTEMPTY', 'EEXIST'));
}

const unless =
  (...codes: string[]) =>
  (e: NodeJS.ErrnoException): void => {
    if (!codes.includes(e.code ?? '')) throw e;
  };

/** True if `path` is a directory with nothing in it. */
export async function isEmptyDirectory(path: string): Promise<boolean> {
  return readdir(path).then(
    (names) => names.length === 0,
    () => false,
  );
}
