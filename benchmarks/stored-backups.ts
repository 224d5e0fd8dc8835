import { readdirSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';

/** The directories of the base backups in an archive, of whichever system they are. */
export function backupsIn(archive: string): string[] {
  return readdirSync(archive, { recursive: true, encoding: 'utf8' })
    .filter((name) => basename(name) === 'backup.json')
    .map((name) => dirname(join(archive, name)));
}
