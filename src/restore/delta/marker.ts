import { join } from 'node:path';
import { TargetError } from '../../errors.js';
import { fsyncDir, writeFileDurably } from '../../files/durable.js';
import type { RestoreFileSystem } from '../file-system.js';

/**
 * What says that a delta restore has not ended in a directory: durable before anything in it is
 * changed, removed when all is done. It has another name than that of a restore into an empty
 * directory, for which all that it finds beside its own marker is its own, to be removed.
 */
export const DELTA_MARKER = '.walkeep-delta';

export interface DeltaMarker {
  format: 1;
  /** Of this run: it removes no other's. Those of earlier versions have none. */
  token?: string | undefined;
  backup: string;
  /** Of the cluster, whose pg_control is not there any more. */
  systemId: string;
  catalogVersion: number;
  /** All that it writes to or removes from, that of the server first. */
  roots: string[];
  /** What is kept gets it behind its name. */
  stamp: string;
  /** Where the old pg_wal goes; absent: there was no WAL in it. */
  oldWal?: string | undefined;
}

/** Undefined: there is none. @throws TargetError for what is none */
export async function readDeltaMarker(
  dataDir: string,
  fs: Pick<RestoreFileSystem, 'readFile'>,
): Promise<DeltaMarker | undefined> {
  const path = join(dataDir, DELTA_MARKER);
  let text: string;
  try {
    text = (await fs.readFile(path)).toString('utf8');
  } catch (e) {
    if (['ENOENT', 'ENOTDIR'].includes((e as NodeJS.ErrnoException).code ?? '')) return undefined;
    throw e;
  }
  try {
    const marker = JSON.parse(text) as DeltaMarker;
    if (marker.format === 1 && Array.isArray(marker.roots)) return marker;
  } catch {
    // Told below.
  }
  throw new TargetError(`"${path}" is no marker of a delta restore that this walkeep knows`, {
    path,
    hint: 'Restore into an empty directory.',
  });
}

export async function writeDeltaMarker(
  dataDir: string,
  marker: DeltaMarker,
  fs: RestoreFileSystem,
): Promise<void> {
  const path = join(dataDir, DELTA_MARKER);
  await writeFileDurably(path, `${JSON.stringify(marker)}\n`, { temporary: `${path}.tmp`, fs });
}

/** Another's, who has begun since, stays: what it says of that one is still so. */
export async function removeDeltaMarker(
  dataDir: string,
  token: string,
  fs: RestoreFileSystem,
): Promise<void> {
  if ((await readDeltaMarker(dataDir, fs))?.token !== token) return;
  await fs.unlink(join(dataDir, DELTA_MARKER));
  await fsyncDir(dataDir, fs);
}
