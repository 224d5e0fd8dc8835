import { join } from 'node:path';
import { storageError, writeFileDurably } from '../files/durable.js';
import { type FileSystem, nodeFileSystem } from '../files/file-system.js';
import { historyFileName } from '../wal/file-name.js';
import { judgeHistory, type StoredHistory } from '../wal/history-file.js';

/** Reads what a directory has of a timeline's history. @throws StorageError if it cannot be read */
export async function readStoredHistory(
  directory: string,
  timeline: number,
  fs: Pick<FileSystem, 'readFile'> = nodeFileSystem,
): Promise<StoredHistory> {
  const path = join(directory, historyFileName(timeline));
  let content: Buffer;
  try {
    content = await fs.readFile(path);
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code === 'ENOENT') return { state: 'absent' };
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
