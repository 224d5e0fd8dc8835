import type { Archive } from '../archive/archive.js';
import { type BackupArea, openBackupArea } from '../archive/backups/area.js';
import { readBackups } from '../archive/backups/catalog.js';
import type { Catalog } from '../archive/catalog.js';
import { JoinedArchive } from '../archive/places/joined-archive.js';
import {
  type ArchiveOptions,
  openArchive,
  type StoreEnvironment,
} from '../archive/places/open-archive.js';
import { readCatalog } from '../archive/read-catalog.js';
import { UsageError, type WalkeepError } from '../errors.js';
import type { Candidate } from './choose.js';

/** All that some places have for a restore. */
export interface Sources {
  /** Undefined: no WAL is there. */
  catalog: Catalog | undefined;
  /** Complete backups of the cluster; of one that several places have, that of the first. */
  candidates: Candidate[];
  /** Backups whose record cannot be read. */
  problems: WalkeepError[];
  close(): Promise<void>;
}

/**
 * Opens the places: WAL is read from all of them, backups from the first that has each.
 * @param envOf the environment with a store's credentials, where that is not the process's
 * @throws UsageError for no place, or where several clusters are there and none is named;
 *   StoreAccessError, StoreUncertainError, StorageError
 */
export async function openSources(
  places: readonly string[],
  keys: ArchiveOptions,
  signal?: AbortSignal,
  envOf: (place: string) => StoreEnvironment | undefined = () => undefined,
): Promise<Sources> {
  const archives: Archive[] = [];
  const areas: BackupArea[] = [];
  const close = async (): Promise<void> => {
    for (const one of [...archives, ...areas]) await one.close();
  };
  try {
    for (const place of places) {
      signal?.throwIfAborted();
      const env = envOf(place);
      archives.push(await openArchive(place, { ...keys, env }));
      areas.push(await openBackupArea(place, { systemId: keys.systemId, env, signal }));
    }
    const [first, second] = archives;
    if (!first) throw new UsageError('no archive is given');
    const catalog = await readCatalog(second ? new JoinedArchive(archives) : first);
    const hasWal = catalog.timelines.some(({ segments }) => segments.length > 0);
    const found = await readCandidates(areas, signal);
    const systemId = keys.systemId ?? (hasWal ? catalog.systemId : undefined) ?? only(found);
    return {
      catalog: hasWal && catalog.systemId === systemId ? catalog : undefined,
      candidates: found.candidates.filter(({ record }) => record.systemId === systemId),
      problems: found.problems,
      close,
    };
  } catch (e) {
    await close();
    throw e;
  }
}

async function readCandidates(
  areas: readonly BackupArea[],
  signal: AbortSignal | undefined,
): Promise<{ candidates: Candidate[]; problems: WalkeepError[] }> {
  const candidates = new Map<string, Candidate>();
  const problems: WalkeepError[] = [];
  for (const area of areas) {
    for (const { id, record, problem } of await readBackups(area, signal)) {
      if (problem) problems.push(problem);
      if (record && !candidates.has(id)) candidates.set(id, { record, area });
    }
  }
  return { candidates: [...candidates.values()], problems };
}

/** Undefined where there is none. @throws UsageError where there are several */
function only({ candidates }: { candidates: readonly Candidate[] }): bigint | undefined {
  const [id, ...others] = new Set(candidates.map(({ record }) => record.systemId));
  if (others.length === 0) return id;
  throw new UsageError('there are backups of several clusters', {
    detail: `System identifiers ${[id, ...others].join(', ')}.`,
    hint: 'Say which one with --system-id.',
  });
}
