import type { DirectoryEntry } from '../files/file-system.js';
import type { readLockHolder } from '../files/lock.js';
import type { Capabilities } from '../store/store.js';
import type { StoredHistory } from '../wal/history-file.js';
import type { LedgerState } from './ledger-entry.js';
import type { StoredSegment } from './segment-source.js';

/** The cluster that an archive is of. */
export interface ArchiveCluster {
  systemId: bigint;
  /** Bytes; undefined where nothing is known of it yet. */
  segmentSize: number | undefined;
}

/** What a store is and has, for who judges it. */
export interface StoreFacts {
  capabilities: Capabilities | undefined;
  /** Why they could not be tried. */
  refusal: string | undefined;
  /** The complete segment that was stored last. */
  newest: { name: string; modified: Date } | undefined;
  /** Milliseconds since 1970 by the store's clock, as far as it is known. */
  now: number;
}

/** A damaged copy of a segment that was not read, since another archive has a better one. */
export interface PassedOver {
  path: string;
  /** What is wrong with it. */
  problem: string;
  /** What was read. */
  instead: string;
}

/** Names of files, each in one of them. */
export interface RemovedFiles {
  removed: string[];
  retained: string[];
}

/**
 * An archive for those who look at it, wherever its files lie. Files are called by their bare names,
 * as in a directory. Undefined, false, `absent` and an empty list say that something was looked for
 * in what is proven to be an archive, and is not there; where that cannot be told, everything throws:
 * StorageError of a directory, StoreUncertainError or StoreAccessError of a store.
 */
export interface Archive {
  /** Where it is, for messages and to open it again in another thread. */
  readonly place: string;
  /**
   * True where its files lie in a directory of this machine, flat, as pg_receivewal's; a receiver may
   * be at work there. False for a store: what is in one never changes.
   */
  readonly isDirectory: boolean;
  /** As early as that costs nothing, proves that it can be asked. @throws ArchiveAccessError */
  reach(): Promise<void>;
  /** The cluster that it says it is of; undefined where it says nothing. */
  cluster(): Promise<ArchiveCluster | undefined>;
  /** All that is there now, in no order. */
  list(): Promise<DirectoryEntry[]>;
  /**
   * Of all that is there at least what tells whether a segment may rightly be missing: all history
   * files, of each timeline the first segment, and of its own the first behind it.
   * @param base of the segment; a history file's name asks for the timelines alone
   */
  listAround(base: string): Promise<DirectoryEntry[]>;
  /** True if the name is taken, by whatever. */
  has(name: string): Promise<boolean>;
  ledger(): Promise<LedgerState | undefined>;
  history(timeline: number): Promise<StoredHistory>;
  /** The content of a history or backup history file. */
  text(name: string): Promise<Buffer | undefined>;
  /**
   * The complete, or the partial, files of a segment that are there now, best first.
   * @param toRead each is read, or discarded: it may be on its way already
   */
  stored(base: string, partial: boolean, options?: { toRead?: boolean }): Promise<StoredSegment[]>;
  /** Hands a segment on under whatever name it has by now, see `readCurrent`. */
  segment<T>(name: string, read: (file: StoredSegment) => T | Promise<T>): Promise<T>;
  /** The name of a complete file of the segment that a name is of, in whatever form. */
  completeName(name: string): Promise<string | undefined>;
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
  /**
   * Removes files, in this order as far as the archive has one; one that is gone already was removed
   * by another. With a segment goes what there is of it from before it was whole, in a store.
   * @returns `retained`: what a lock on it keeps
   */
  remove(names: readonly string[]): Promise<RemovedFiles>;
  /** Of a store: tries what it can do, with objects of its own that are removed again. */
  storeFacts?(): Promise<StoreFacts>;
  /** Of several archives that are read as one, the damaged copies that were met so far. */
  readonly passedOver?: readonly PassedOver[];
  /** Who receives into it. */
  receiver(): ReturnType<typeof readLockHolder>;
  /** Ends what is held open. */
  close(): Promise<void>;
}
