import { join } from 'node:path';
import { storageError } from '../files/durable.js';
import type { FileSystem } from '../files/file-system.js';
import { parseStoredName } from '../wal/file-name.js';

/** Begins the names of files under way; a dotfile, so that no scan takes one for WAL. */
const PREFIX = '.walkeep-';

/** The name under which a file of a segment is made before it gets `name`. */
export function temporaryName(name: string): string {
  return PREFIX + name;
}

/**
 * Files under way: a segment being compressed, a partial being brought into another form (`.tmp`:
 * of older versions), a new or spare file. What is kept as evidence has other names.
 */
function isUnderWay(name: string): boolean {
  if (name === `${PREFIX}new` || name === `${PREFIX}spare`) return true;
  const ours = name.startsWith(PREFIX);
  const target = ours
    ? /^(.*?)(\.seed)?$/.exec(name.slice(PREFIX.length))
    : /^\.(.*)\.tmp$/.exec(name);
  const stored = parseStoredName(target?.[1] ?? '');
  // Plain ones with `.tmp` are other programs'.
  return stored?.kind === 'segment' && (ours || stored.compression !== 'none');
}

/**
 * Removes what a killed receiver left half made: each may take as much space as a segment, and only
 * who holds the directory's lock knows that nobody is at work on it. @throws StorageError
 */
export async function removeLeftovers(directory: string, fs: FileSystem): Promise<void> {
  const entries = await fs.readdir(directory).catch((e) => {
    throw storageError('open directory', directory, e);
  });
  for (const { name, kind, linked } of entries) {
    if (kind !== 'file' || linked || !isUnderWay(name)) continue;
    const path = join(directory, name);
    await fs.unlink(path).catch((e) => {
      throw storageError('remove file', path, e);
    });
  }
}
