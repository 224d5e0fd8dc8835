import { lstat, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { storageError } from '../files/durable.js';
import { type DirectoryEntry, nodeFileSystem } from '../files/file-system.js';
import { readLockHolder } from '../files/lock.js';
import { storedNames } from '../wal/file-name.js';
import type { StoredHistory } from '../wal/history-file.js';
import { readStoredHistory } from './history.js';
import { type LedgerState, readLedger } from './ledger.js';
import { readCurrent, type StoredSegment } from './segment-source.js';

/**
 * An archive for those who look at it, wherever its files lie. Files are called by their bare names.
 * Undefined, false and `absent` say that something was looked for and is not there; where that
 * cannot be told, everything throws StorageError.
 */
export interface Archive {
  /** Where it is, for messages and to open it again in another thread. */
  readonly place: string;
  /** All that is there now, in no order. */
  list(): Promise<DirectoryEntry[]>;
  /** True if the name is taken, by whatever. */
  has(name: string): Promise<boolean>;
  ledger(): Promise<LedgerState | undefined>;
  history(timeline: number): Promise<StoredHistory>;
  /** Hands a segment on under whatever name it has by now, see `readCurrent`. */
  segment<T>(name: string, read: (file: StoredSegment) => T | Promise<T>): Promise<T>;
  /** The name of a complete file of the segment that a name is of, in whatever form. */
  completeName(name: string): Promise<string | undefined>;
  /** Removes a file; one that is gone already was removed by another. */
  remove(name: string): Promise<void>;
  /** Who receives into it. */
  receiver(): ReturnType<typeof readLockHolder>;
}

/** The archive in a directory. Nothing is looked at yet. */
export function openArchive(directory: string): Archive {
  const pathOf = (name: string) => join(directory, name);
  const has = (name: string) =>
    lstat(pathOf(name)).then(
      () => true,
      (e: NodeJS.ErrnoException) => {
        if (e.code === 'ENOENT') return false;
        throw storageError('look at', pathOf(name), e);
      },
    );
  return {
    place: directory,
    list: () =>
      nodeFileSystem.readdir(directory).catch((e) => {
        throw storageError('open directory', directory, e);
      }),
    has,
    ledger: () => readLedger(directory),
    history: (timeline) => readStoredHistory(directory, timeline),
    segment: (name, read) => readCurrent(directory, name, read),
    completeName: async (name) => {
      for (const candidate of storedNames(name.slice(0, 24), false)) {
        if (await has(candidate)) return candidate;
      }
      return undefined;
    },
    remove: (name) =>
      unlink(pathOf(name)).catch((e) => {
        if (e.code !== 'ENOENT') throw storageError('remove file', pathOf(name), e);
      }),
    receiver: () => readLockHolder(directory),
  };
}
