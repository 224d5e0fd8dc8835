import { stat } from 'node:fs/promises';
import type { Archive, RemovedFiles } from '../archive/archive.js';
import { endsOf, type NamedSegment } from '../archive/places/ends.js';
import { type ArchiveOptions, withArchives } from '../archive/places/open-archive.js';
import { StorageError, UsageError } from '../errors.js';
import { storageError } from '../files/durable.js';
import { aSwitch, aText, type Checks, checkOptions } from '../options.js';
import { parseStoredName } from '../wal/file-name.js';

/** What `cleanupArchive` may remove beside segments. */
export interface CleanupOptions {
  /** An extension that other programs gave the files, such as `.bz2`; ours need no mention. */
  stripExtension?: string | undefined;
  /** Remove backup history files too. */
  cleanBackupHistory?: boolean | undefined;
}

const CHECKS: Checks<CleanupOptions> = { stripExtension: aText, cleanBackupHistory: aSwitch };

/** What would be removed, and from where on everything is kept. */
export interface CleanupPlan {
  directory: string;
  /** Name of the oldest segment that is kept, its timeline included. */
  oldest: string;
  /** Bare names, oldest first: whenever removal is interrupted, what is left has no hole. */
  remove: string[];
}

/**
 * The segment that a name given as the oldest to keep means: of a segment, a partial file, or a
 * backup history file (pg_archivecleanup.c, SetWALFileNameForCleanup).
 * @throws UsageError for any other name
 */
export function oldestSegment(name: string, stripExtension?: string): string {
  const stored = parseStoredName(trim(name, stripExtension));
  if (stored && stored.kind !== 'history') return stored.base;
  throw new UsageError('invalid file name argument', {
    actual: name,
    hint: 'Give the name of a segment, a .partial or a .backup file: archive_cleanup_command has it as %r.',
  });
}

/**
 * Finds what pg_archivecleanup would remove: files of segments before `oldest`, whatever their
 * timeline, since a parent's segments may be needed below a child's. History files are never
 * removed, nor are partial files with no complete segment behind them: the end of the archive,
 * where a receiver goes on.
 * @throws StorageError if the directory cannot be read, or the ledger where a partial file depends on
 *   it; UsageError for a bad name
 */
export async function planCleanup(
  directory: string,
  oldest: string,
  options: CleanupOptions = {},
  keys: ArchiveOptions = {},
): Promise<CleanupPlan> {
  checkOptions('cleanup', options, CHECKS);
  return withArchives(directory, keys, (archive) => plan(archive, oldest, options));
}

async function plan(
  archive: Archive,
  oldest: string,
  options: CleanupOptions,
): Promise<CleanupPlan> {
  const directory = archive.place;
  if (archive.isDirectory && !(await stat(directory).catch(() => undefined))?.isDirectory()) {
    throw new StorageError(`archive location "${directory}" does not exist`, { path: directory });
  }
  const kept = oldestSegment(oldest, options.stripExtension);
  const entries = await archive.list().catch((e) => {
    // In pg_archivecleanup's words.
    if (archive.isDirectory) throw storageError('open archive location', directory, e.cause);
    throw e;
  });
  const remove: (NamedSegment & { name: string })[] = [];
  const segments: NamedSegment[] = [];
  for (const { name, kind } of entries) {
    if (kind !== 'file' && kind !== 'link') continue;
    const stored = parseStoredName(trim(name, options.stripExtension));
    if (!stored || stored.kind === 'history') continue;
    if (stored.kind === 'backup' && !options.cleanBackupHistory) continue;
    const [timeline, segment] = [stored.base.slice(0, 8), stored.base.slice(8)];
    const isSegment = stored.kind === 'segment';
    const file = { name, segment, timeline, open: isSegment && stored.partial };
    if (isSegment) segments.push(file);
    if (segment < kept.slice(8)) remove.push(file);
  }
  const isEnd = await endsOf(archive, segments, remove);
  const order = (a: { segment: string; name: string }, b: typeof a): number =>
    a.segment === b.segment ? compare(a.name, b.name) : compare(a.segment, b.segment);
  return {
    directory,
    oldest: kept,
    remove: remove
      .filter((file) => !isEnd(file))
      .sort(order)
      .map((file) => file.name),
  };
}

/**
 * Removes what was planned, oldest first. `onRemove` is told before each file. What a store retains,
 * since a lock is on it, stays and is no error: it is `retained`.
 * @throws StorageError for the first file that cannot be removed; StoreUncertainError, StoreAccessError
 */
export async function cleanupArchive(
  plan: CleanupPlan,
  onRemove: (path: string) => void = () => {},
  keys: ArchiveOptions = {},
): Promise<RemovedFiles> {
  return withArchives(plan.directory, keys, async (archive) => {
    const result: RemovedFiles = { removed: [], retained: [] };
    // In a directory each is told of, and then removed; a store takes many in one request.
    const batches = archive.isDirectory ? plan.remove.map((name) => [name]) : [plan.remove];
    for (const names of batches) {
      for (const name of names) onRemove(`${plan.directory}/${name}`);
      const { removed, retained } = await archive.remove(names);
      result.removed.push(...removed);
      result.retained.push(...retained);
    }
    return result;
  });
}

/** As TrimExtension: a name that is nothing but the extension stays as it is. */
function trim(name: string, extension: string | undefined): string {
  if (!extension || name.length <= extension.length || !name.endsWith(extension)) return name;
  return name.slice(0, -extension.length);
}

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);
