import fs from 'node:fs';
import { join } from 'node:path';
import { storageError, writeFileDurably } from '../files/durable.js';
import { type FileSystem, nodeFileSystem } from '../files/file-system.js';
import { readRegularSync } from '../files/regular-file.js';
import { historyFileName } from '../wal/file-name.js';
import { judgeHistory, type StoredHistory } from '../wal/history-file.js';
import { rootHistory, type TimelineHistory } from '../wal/timeline.js';
import { danglingLink } from './access.js';
import type { Archive } from './archive.js';

/** Reads what a directory has of a timeline's history. @throws StorageError if it cannot be read */
export async function readStoredHistory(
  directory: string,
  timeline: number,
  fs: Pick<FileSystem, 'readFile' | 'kind'> = nodeFileSystem,
): Promise<StoredHistory> {
  const path = join(directory, historyFileName(timeline));
  let content: Buffer;
  try {
    content = await fs.readFile(path, { follow: true });
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code === 'ENOENT') {
      const kind = await fs.kind(path).catch((cause) => {
        throw storageError('look at', path, cause);
      });
      if (kind === 'link') throw danglingLink(path);
      return { state: 'absent' };
    }
    throw storageError('read file', path, e);
  }
  return judgeHistory(path, timeline, content);
}

/**
 * Keeps a damaged history file under a name that nothing reads, before a good one takes its place.
 * Returns that name. @throws StorageError
 */
export async function keepDamaged(
  directory: string,
  timeline: number,
  content: Buffer,
  options: { mode: number; sync?: boolean; fs?: FileSystem },
): Promise<string> {
  const name = `.walkeep-damaged-${historyFileName(timeline)}`;
  const path = join(directory, name);
  await writeFileDurably(path, content, { ...options, temporary: `${path}.tmp` });
  return name;
}

/**
 * The content of a file, undefined if there is none. A link that leads nowhere is not "none": what
 * it stood for may be on a disk that is not mounted.
 * @throws the errno error; ArchiveAccessError for such a link
 */
export function readIfThere(path: string): Buffer | undefined {
  try {
    return readRegularSync(path);
  } catch (e) {
    const { code } = e as NodeJS.ErrnoException;
    if (code !== 'ENOENT' && code !== 'ENOTDIR') throw e;
    if (fs.lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink()) throw danglingLink(path);
    return undefined;
  }
}

/** The history in a file's content. @throws CorruptWalError if it is none */
export function historyIn(path: string, timeline: number, content: Buffer): TimelineHistory {
  const judged = judgeHistory(path, timeline, content);
  if (judged.state === 'damaged') throw judged.problem;
  return judged.history;
}

/**
 * The history of a timeline from the first of some archives that has it; undefined if none has.
 * @throws ArchiveAccessError, CorruptWalError if it is damaged
 */
export async function requireHistory(
  timeline: number,
  places: readonly Pick<Archive, 'history'>[],
): Promise<TimelineHistory | undefined> {
  if (timeline === 1) return rootHistory(1);
  for (const place of places) {
    const stored = await place.history(timeline);
    if (stored.state === 'damaged') throw stored.problem;
    if (stored.state === 'good') return stored.history;
  }
  return undefined;
}

/**
 * The same for who must not wait for the repair of a damaged one, which says nothing of a segment:
 * what cannot be used is passed over.
 */
export async function findHistory(
  timeline: number,
  places: readonly Pick<Archive, 'history'>[],
): Promise<TimelineHistory | undefined> {
  if (timeline === 1) return rootHistory(1);
  for (const place of places) {
    const stored = await place.history(timeline).catch(() => undefined);
    if (stored?.state === 'good') return stored.history;
  }
  return undefined;
}
