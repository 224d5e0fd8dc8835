import fs from 'node:fs';
import { unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { ArchiveAccessError } from '../../errors.js';
import { reason, storageError } from '../../files/durable.js';
import { type DirectoryEntry, nodeFileSystem } from '../../files/file-system.js';
import { inWords } from '../../text.js';
import {
  COMPRESSIONS,
  historyFileName,
  parseStoredName,
  storedNames,
  unreadableFormOf,
} from '../../wal/file-name.js';
import { judgeHistory } from '../../wal/history-file.js';
import { onArchive } from '../access.js';
import type { Archive, RemovedFiles } from '../archive.js';
import { readIfThere } from '../history.js';
import { isThere, readCurrent, type StoredSegment, segmentAt } from '../segment-source.js';

/**
 * The archive in a directory, flat as pg_receivewal's. What only some of its callers need is loaded
 * when they need it: a restore_command starts once a segment.
 */
export function openDirectory(directory: string): Archive {
  return new DirectoryArchive(directory);
}

class DirectoryArchive implements Archive {
  readonly place: string;
  readonly isDirectory = true;

  constructor(directory: string) {
    this.place = directory;
  }

  #path(name: string): string {
    return join(this.place, name);
  }

  async reach(): Promise<void> {
    const flags = fs.constants.O_RDONLY | fs.constants.O_DIRECTORY;
    try {
      fs.closeSync(fs.openSync(this.place, flags));
    } catch (e) {
      throw this.#unreachable(e);
    }
  }

  async cluster() {
    const { systemId, segmentSize } = (await this.ledger()) ?? {};
    return systemId === undefined ? undefined : { systemId, segmentSize };
  }

  listAround(): Promise<DirectoryEntry[]> {
    return this.list();
  }

  list(): Promise<DirectoryEntry[]> {
    return nodeFileSystem.readdir(this.place).catch((e) => {
      throw this.#unreachable(e);
    });
  }

  #unreachable(cause: unknown): ArchiveAccessError {
    const why = reason(cause as NodeJS.ErrnoException);
    const message = `could not open directory "${this.place}": ${why}`;
    return new ArchiveAccessError(message, { path: this.place, cause });
  }

  async has(name: string): Promise<boolean> {
    const path = this.#path(name);
    return onArchive('look at', path, () => isThere(path));
  }

  async ledger() {
    const { readLedger } = await import('../ledger.js');
    return readLedger(this.place);
  }

  async history(timeline: number) {
    const name = historyFileName(timeline);
    const content = await this.text(name);
    return content
      ? judgeHistory(this.#path(name), timeline, content)
      : { state: 'absent' as const };
  }

  async text(name: string): Promise<Buffer | undefined> {
    const path = this.#path(name);
    return onArchive('read file', path, () => readIfThere(path));
  }

  async stored(base: string, partial: boolean): Promise<StoredSegment[]> {
    return storedNames(base, partial).flatMap((name, i) => {
      const path = this.#path(name);
      const stat = onArchive('stat file', path, () => fs.statSync(path, { throwIfNoEntry: false }));
      if (!stat?.isFile()) return [];
      return [segmentAt(path, COMPRESSIONS[i]!, { partial, size: stat.size })];
    });
  }

  segment<T>(name: string, read: (file: StoredSegment) => T | Promise<T>): Promise<T> {
    return readCurrent(this.place, name, read);
  }

  async completeName(name: string): Promise<string | undefined> {
    for (const candidate of storedNames(name.slice(0, 24), false)) {
      if (await this.has(candidate)) return candidate;
    }
    return undefined;
  }

  async refuseIrregular(base: string, partial: boolean): Promise<void> {
    for (const name of storedNames(base, partial)) {
      const path = this.#path(name);
      const stat = onArchive('stat file', path, () =>
        fs.lstatSync(path, { throwIfNoEntry: false }),
      );
      if (!stat || stat.isFile()) continue;
      throw new ArchiveAccessError(`"${path}" is there, but no file that could be read`, {
        path,
        hint: 'See what it is: a link must lead to a file, on a disk that is mounted.',
      });
    }
  }

  async refuseUnreadableForm(base: string): Promise<void> {
    const found = (await this.list()).find(({ name }) => isUnreadable(name, base));
    if (found === undefined) return;
    throw unreadableForm(this.#path(found.name), base);
  }

  async remove(names: readonly string[]): Promise<RemovedFiles> {
    for (const name of names) {
      await unlink(this.#path(name)).catch((e) => {
        if (e.code !== 'ENOENT') throw storageError('remove file', this.#path(name), e);
      });
    }
    return { removed: [...names], retained: [] };
  }

  async receiver() {
    const { readLockHolder } = await import('../../files/lock.js');
    return readLockHolder(this.place);
  }

  async close(): Promise<void> {}
}

const METHODS = inWords(
  COMPRESSIONS.filter((name) => name !== 'none'),
  'or',
);

export function unreadableForm(path: string, base: string): ArchiveAccessError {
  return new ArchiveAccessError(`"${path}" may hold ${base}, in a form that cannot be read`, {
    path,
    hint: `Put it there plain, or compressed with ${METHODS}; or move what it is not away.`,
  });
}

/** Behind the whole name of a backup history file nothing is known. */
export function isUnreadable(name: string, base: string): boolean {
  if (name === base || !name.startsWith(base)) return false;
  return parseStoredName(base)?.kind === 'backup' || unreadableFormOf(name) === base;
}
