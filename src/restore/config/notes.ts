import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { BackupReader } from '../../archive/backups/reader.js';
import type { BaseIndex } from '../../base/base-index.js';
import { readMember } from '../member.js';
import { adoptFile, adoptOptions, OWN_FILES, oldDataDirOf } from './adopt.js';
import { type AdoptedFile, adoptedDirectories } from './adopted.js';

/** Of a plan. */
export interface Adoption {
  dataDir: string;
  configDir: string;
  adopted: readonly AdoptedFile[];
  /** Files that the backup has in the data directory itself. */
  occupied: ReadonlySet<string>;
  /** The main configuration file. */
  main: string;
}

/** What in the configuration will lead nowhere: it is said before anything is written. */
export async function adoptionNotes(
  reader: BackupReader,
  index: BaseIndex,
  adoption: Adoption,
  signal: AbortSignal | undefined,
): Promise<string[]> {
  const { dataDir, configDir, adopted, occupied, main } = adoption;
  const { outside } = reader.record;
  const notes: string[] = [];
  const common = adoptOptions(adoption, adopted, adoptedDirectories(outside, configDir), {
    oldDataDir: oldDataDirOf(main),
    exists: (path) => existsSync(path) || occupied.has(path),
    note: (message) => notes.push(message),
  });
  for (const { object, ...file } of adopted) {
    if (object === undefined) continue;
    const text = (await reader.object(object, signal)).toString('latin1');
    const kind = outside.find(({ path }) => path === file.from)?.kind ?? 'settings';
    adoptFile(text, kind, { ...common, file });
  }
  for (const [name, kind] of OWN_FILES) {
    const path = join(dataDir, name);
    if (adopted.some(({ to }) => to === path) || !occupied.has(path)) continue;
    if (name === 'postgresql.conf' && configDir !== dataDir) continue;
    const text = (await readMember(reader, index, name, signal))?.toString('latin1') ?? '';
    adoptFile(text, kind, { ...common, file: { from: path, to: path } });
  }
  return notes;
}
