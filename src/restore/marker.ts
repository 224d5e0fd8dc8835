import { join } from 'node:path';
import { TargetError } from '../errors.js';
import { durableRename, fsyncDir, writeFileDurably } from '../files/durable.js';
import { emptyDirectory, type RestoreFileSystem } from './file-system.js';

/**
 * What says that a directory is a restore's that has not ended: created before anything else in it,
 * in each of the directories, removed when all is done. Whoever finds it knows that all in there
 * came from that restore, since the directory was empty before.
 */
export const MARKER = '.walkeep-restore';
/** What a lock leaves, see files/lock.ts. */
const LOCK = '.walkeep-lock';

export interface Marker {
  format: 1;
  /** Of this restore, the same in all its directories. */
  token: string;
  backup: string;
  /** What was asked for, so that the same command is known again. */
  command: string;
  /** All that it writes to, that of the server first. */
  roots: string[];
  /** What makes a server of it, and how that is called until all else is durable. */
  controls: { path: string; until: string }[];
}

/** What says in a directory who is at work there, or was when he was killed. */
export class MarkerFile<M extends { format: 1; token?: string | undefined; roots: string[] }> {
  readonly #name: string;
  readonly #of: string;
  readonly #hint: string;

  /** @param unknown what is told of a file of that name that is no marker */
  constructor(name: string, unknown: { of: string; hint: string }) {
    this.#name = name;
    this.#of = unknown.of;
    this.#hint = unknown.hint;
  }

  /** Undefined: there is none. @throws TargetError for what is none */
  async read(root: string, fs: Pick<RestoreFileSystem, 'readFile'>): Promise<M | undefined> {
    const path = join(root, this.#name);
    let text: string;
    try {
      text = (await fs.readFile(path)).toString('utf8');
    } catch (e) {
      if (['ENOENT', 'ENOTDIR'].includes((e as NodeJS.ErrnoException).code ?? '')) return undefined;
      throw e;
    }
    try {
      const marker = JSON.parse(text) as M;
      if (marker.format === 1 && Array.isArray(marker.roots)) return marker;
    } catch {
      // Told below.
    }
    const message = `"${path}" is no marker of ${this.#of} that this walkeep knows`;
    throw new TargetError(message, { path, hint: this.#hint });
  }

  /** @throws StorageError */
  async write(root: string, marker: M, fs: RestoreFileSystem): Promise<void> {
    const path = join(root, this.#name);
    await writeFileDurably(path, `${JSON.stringify(marker)}\n`, { temporary: `${path}.tmp`, fs });
  }

  /** Another's stays, who has begun since: what it says of him is still so. @throws StorageError */
  async remove(root: string, token: string, fs: RestoreFileSystem): Promise<void> {
    if ((await this.read(root, fs))?.token !== token) return;
    await fs.unlink(join(root, this.#name));
    await fsyncDir(root, fs);
  }
}

export const MARKERS = new MarkerFile<Marker>(MARKER, {
  of: 'a restore',
  hint: 'Look at the directory, and empty it if nothing in it is needed.',
});

/** True for what a restore has in a directory before it has anything else there. */
export function isOwnName(name: string): boolean {
  return name === MARKER || name === `${MARKER}.tmp` || name.startsWith(LOCK);
}

/** How a directory is that a restore is to fill. */
export type RootState = 'absent' | 'empty' | 'half' | 'complete' | 'taken';

/**
 * @param token of a half restore that it may belong to; absent: any may be in it
 * @throws StorageError, TargetError
 */
export async function rootState(
  root: string,
  fs: RestoreFileSystem,
  token?: string,
): Promise<RootState> {
  const found = await fs.stat(root);
  if (!found) return 'absent';
  if (found.kind !== 'directory') return 'taken';
  const others = (await fs.readdir(root)).filter(({ name }) => !isOwnName(name));
  const marker = await MARKERS.read(root, fs);
  if (!marker) return others.length === 0 ? 'empty' : 'taken';
  if (token !== undefined && marker.token !== token) return 'taken';
  // Nothing is removed any more of what a server may have been started on.
  for (const { path } of marker.controls) if (await fs.stat(path)) return 'complete';
  return 'half';
}

/** Removes what a half restore left in all its directories. @throws StorageError */
export async function removeHalf(marker: Marker, fs: RestoreFileSystem): Promise<void> {
  const [first, ...others] = marker.roots as [string, ...string[]];
  for (const root of others) {
    const state = await rootState(root, fs, marker.token);
    if (state !== 'half') continue;
    await emptyDirectory(root, fs, (name) => name === MARKER);
    await fs.unlink(join(root, MARKER));
    await fsyncDir(root, fs);
  }
  await emptyDirectory(first, fs, (name) => isOwnName(name));
}

/** Gives the files their names that make a server of it: all else is durable. @throws StorageError */
export async function makeStartable({ controls }: Marker, fs: RestoreFileSystem): Promise<void> {
  for (const { path, until } of controls) {
    if (await fs.stat(until)) await durableRename(until, path, fs);
  }
}

/** What a restore holds while it is at work, and lets go of at its end. */
export interface Held {
  /** The WAL that the server is to replay is still there. */
  confirm: () => Promise<void>;
  /** Behind that nothing but the markers says that it was there. */
  leaveNoName: () => Promise<void>;
}

/** Takes the markers away, that of the data directory last. @throws StorageError */
export async function removeMarkers(marker: Marker, fs: RestoreFileSystem): Promise<void> {
  for (const root of marker.roots.toReversed()) await MARKERS.remove(root, marker.token, fs);
}
