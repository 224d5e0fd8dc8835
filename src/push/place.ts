import {
  type FileHandle,
  lstat,
  open,
  readdir,
  realpath,
  rm,
  stat,
  unlink,
} from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { ReadAt } from '../archive/compare.js';
import { NotSupportedError, StorageError } from '../errors.js';
import { fsyncDir, fsyncError, fsyncLinked, storageError } from '../files/durable.js';
import { grant } from '../files/file-system.js';
import { linkAnew } from '../files/hard-link.js';
import { ownIdentity, type ProcessIdentity } from '../files/process-identity.js';
import { isOrphaned, stagedName } from '../files/staged-name.js';
import { nodeTreeFileSystem } from '../files/tree-file-system.js';

/** The file that is pushed, open for reading. */
export interface PushSource {
  handle: FileHandle;
  read: ReadAt;
  path: string;
  /** Its bare name. */
  name: string;
  /** Bytes. */
  size: number;
  /** Permission bits for its copy. */
  mode: number;
}

/**
 * Where files are written before they get their names: on the archive's own file system, and a
 * dot directory, which neither a receiver nor other tools look into.
 */
const STAGING = '.walkeep-push';
/** Milliseconds after which a staged file that nobody writes to was left by a crash, wherever. */
const LEFTOVER_AGE = 600_000;
const CHUNK = 1024 * 1024;

/** A new name in the staging directory, which is made first if need be. */
export async function stagingPath(directory: string): Promise<string> {
  const staging = join(directory, STAGING);
  await nodeTreeFileSystem.mkdir(staging, 0o700).catch((e) => {
    throw storageError('create directory', staging, e);
  });
  // A link would have us write, and remove, wherever it leads.
  if (!(await lstat(staging)).isDirectory()) {
    throw new StorageError(`"${staging}" is not a directory`, {
      path: staging,
      hint: 'Remove it.',
    });
  }
  const self = await ownIdentity();
  await removeLeftovers(staging, self);
  return join(staging, stagedName(self));
}

async function removeLeftovers(staging: string, self: ProcessIdentity): Promise<void> {
  for (const name of await readdir(staging)) {
    const path = join(staging, name);
    const found = await lstat(path).catch(() => undefined);
    if (!found) continue;
    // Should its owner live after all, it finds the file gone, and says so.
    const old = Date.now() - found.mtimeMs > LEFTOVER_AGE;
    if (old || (await isOrphaned(name, self))) await rm(path, { force: true });
  }
}

/** Copies the source into the staging directory, durably. Returns the path of the copy. */
export async function stageCopy(source: PushSource, directory: string): Promise<string> {
  const path = await stagingPath(directory);
  try {
    const target = await open(path, 'wx', source.mode).catch((e) => {
      throw storageError('create file', path, e);
    });
    try {
      grant(target.fd, path, source.mode);
      await copy(source, target, path);
      await target.sync().catch((e) => {
        throw fsyncError(path, e);
      });
    } finally {
      await target.close();
    }
    return path;
  } catch (e) {
    await rm(path, { force: true }).catch(() => {});
    throw e;
  }
}

async function copy(source: PushSource, target: FileHandle, path: string): Promise<void> {
  const buffer = Buffer.allocUnsafe(Math.min(CHUNK, Math.max(source.size, 1)));
  let at = 0;
  for (;;) {
    const { bytesRead } = await source.handle.read(buffer, 0, buffer.length, at).catch((e) => {
      throw storageError('read file', source.path, e);
    });
    if (bytesRead === 0) break;
    at += bytesRead;
    await target.writeFile(buffer.subarray(0, bytesRead)).catch((e) => {
      throw storageError('write file', path, e);
    });
  }
  if (at === source.size) return;
  throw new StorageError(`"${source.path}" changed while it was read`, {
    path: source.path,
    expected: `${source.size}`,
    actual: `${at}`,
  });
}

/**
 * Gives a staged file its name, durably, unless something has it already: false then. A link, not
 * a rename: what a receiver may have put there in this very moment is never replaced.
 */
export async function place(staged: string, directory: string, name: string): Promise<boolean> {
  let linked: Awaited<ReturnType<typeof linkAnew>>;
  try {
    linked = await linkAnew(staged, join(directory, name));
  } catch (e) {
    throw storageError('link file', staged, e);
  } finally {
    await unlink(staged).catch(() => {});
  }
  if (linked === 'no links') {
    throw new NotSupportedError(`the file system of "${directory}" has no hard links`, {
      path: directory,
      hint: 'push needs them to store a file without ever replacing one: use a file system that has them, or "walkeep receive", which does without.',
    });
  }
  if (linked === 'done') await fsyncDir(directory);
  return linked === 'done';
}

/**
 * Makes sure that a file that is there already survives a crash: whoever made it may not have. The
 * server's own file, by whatever link, is no copy: it is about to be overwritten.
 */
export async function confirmDurable(
  { handle, path }: PushSource,
  directory: string,
  name: string,
): Promise<void> {
  const stored = join(directory, name);
  const [mine, theirs] = await Promise.all([
    handle.stat({ bigint: true }),
    stat(stored, { bigint: true }),
  ]).catch((e) => {
    throw storageError('look at', stored, e);
  });
  const isSame = mine.dev === theirs.dev && mine.ino === theirs.ino;
  // What is pushed from where it is stored is the archive's own.
  if (isSame && (await entryOf(path)) !== (await entryOf(stored))) {
    throw new StorageError(`"${stored}" is a link to "${path}" itself, and no copy of it`, {
      path: stored,
      hint: 'Remove the link: the file is then stored.',
    });
  }
  await fsyncLinked(join(directory, name));
  await fsyncDir(directory);
}

/** A name in its directory, whatever links led there; links of that name itself are not followed. */
async function entryOf(path: string): Promise<string> {
  const directory = await realpath(dirname(path)).catch((e) => {
    throw storageError('look at', path, e);
  });
  return join(directory, basename(path));
}
