import fs from 'node:fs';
import { join } from 'node:path';
import { storedNames } from '../../wal/file-name.js';
import { onArchive } from '../access.js';
import { isStore } from './open-archive.js';

/**
 * What tells the best complete file of a segment at a place apart from all others, also from one that
 * takes its name later; undefined if a directory has none. Of a store it is the place: what is there
 * under a key never changes, and need not be asked for. @throws ArchiveAccessError
 */
export async function stampOf(place: string, base: string): Promise<string | undefined> {
  if (isStore(place)) {
    const { createHash } = await import('node:crypto');
    return createHash('sha256').update(place).digest('hex').slice(0, 24);
  }
  for (const name of storedNames(base, false)) {
    const path = join(place, name);
    const stat = onArchive('stat file', path, () =>
      fs.statSync(path, { bigint: true, throwIfNoEntry: false }),
    );
    if (!stat?.isFile()) continue;
    const { dev, ino, size, mtimeNs, ctimeNs } = stat;
    return [dev, ino, size, mtimeNs, ctimeNs].map((n) => n.toString(36)).join('-');
  }
  return undefined;
}
