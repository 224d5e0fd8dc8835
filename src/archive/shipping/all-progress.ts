import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { storageError } from '../../files/durable.js';
import { readLockHolder } from '../../files/lock.js';
import { readProgress, SHIP_DIRECTORY, type ShipProgress } from './progress.js';

/** What a directory keeps of each place that it was ever shipped to. */
export type KeptProgress = ShipProgress & {
  /** Where that is kept: to be removed for a place that is not shipped to any more. */
  directory: string;
  /** A process ships there now, as far as can be seen. */
  running: boolean;
};

/** @throws StorageError if one cannot be read or is damaged */
export async function readAllProgress(parent: string): Promise<KeptProgress[]> {
  const path = join(parent, SHIP_DIRECTORY);
  const names = await readdir(path).catch((e: NodeJS.ErrnoException) => {
    if (e.code === 'ENOENT') return [];
    throw storageError('open directory', path, e);
  });
  const found: KeptProgress[] = [];
  for (const name of names.sort()) {
    const directory = join(path, name);
    const progress = await readProgress(directory);
    if (!progress) continue;
    const running = (await readLockHolder(directory)) !== undefined;
    found.push({ ...progress, directory, running });
  }
  return found;
}
