import type { DirectoryEntry } from '../files/file-system.js';
import type { readLockHolder } from '../files/lock.js';
import type { StoredHistory } from '../wal/history-file.js';
import type { LedgerState } from './ledger-entry.js';
import type { StoredSegment } from './segment-source.js';

/**
 * An archive for those who look at it, wherever its files lie. Files are called by their bare names.
 * Undefined, false, `absent` and an empty list say that something was looked for and is not there;
 * where that cannot be told, everything throws StorageError.
 */
export interface Archive {
  /** Where it is, for messages and to open it again in another thread. */
  readonly place: string;
  /** Proves that there is an archive that can be asked. @throws ArchiveAccessError */
  reach(): Promise<void>;
  /** All that is there now, in no order. */
  list(): Promise<DirectoryEntry[]>;
  /** True if the name is taken, by whatever. */
  has(name: string): Promise<boolean>;
  ledger(): Promise<LedgerState | undefined>;
  history(timeline: number): Promise<StoredHistory>;
  /** The content of a history or backup history file. */
  text(name: string): Promise<Buffer | undefined>;
  /** The complete, or the partial, files of a segment that are there now, best first. */
  stored(base: string, partial: boolean): Promise<StoredSegment[]>;
  /** Hands a segment on under whatever name it has by now, see `readCurrent`. */
  segment<T>(name: string, read: (file: StoredSegment) => T | Promise<T>): Promise<T>;
  /** The name of a complete file of the segment that a name is of, in whatever form. */
  completeName(name: string): Promise<string | undefined>;
  /**
   * What tells the best complete file of a segment apart from all others, also from one that takes
   * its place later; undefined if there is none.
   */
  stamp(base: string): Promise<string | undefined>;
  /**
   * Refuses to take a segment for absent whose name is there but is no file: a link to a disk that
   * is not mounted, a fifo. "Not there" would end recovery. @throws ArchiveAccessError
   */
  refuseIrregular(base: string, partial: boolean): Promise<void>;
  /**
   * Refuses to say anything of a file that is there under a name with an end that is not known: it
   * may be compressed or encrypted, or still be copied.
   * @param base the name without what may stand behind it
   * @throws ArchiveAccessError
   */
  refuseUnreadableForm(base: string): Promise<void>;
  /** Removes a file; one that is gone already was removed by another. */
  remove(name: string): Promise<void>;
  /** Who receives into it. */
  receiver(): ReturnType<typeof readLockHolder>;
}
