import type { ArchiveStatus, BackupStatus, ErrorReport } from '../status.js';
import type { ObservedStore } from './messages.js';
import type { BackupReach } from './windows.js';

/** What a thread does: one look, at one place. */
export type LookJob =
  /** None: which thread of the system is it? */
  | { kind: 'hello' }
  /** The WAL of a directory. `unless`: only if its names have another shape than in the look before. */
  | { kind: 'wal'; directory: string; unless?: 'same' }
  /** The backups of a directory or a store, with what each can be restored to. */
  | {
      kind: 'backups';
      /** "directory", or the store's name. */
      place: string;
      directory: string;
      store?: ObservedStore;
      timeout: number;
    };

export type WalLook = Pick<
  ArchiveStatus,
  'segments' | 'bytes' | 'timelines' | 'gaps' | 'latest' | 'freeBytes' | 'more'
> & {
  readAt: string;
  /** Sizes of some files are still to be asked for. */
  incomplete: boolean;
};

export interface BackupsLook {
  readAt: string;
  backups: BackupStatus[];
  more: number;
  /** What windows are made of; also of backups that are left out above. */
  reaches: BackupReach[];
  latest?: number;
}

/** What comes back; of WAL that has the same shape nothing. */
export interface LookAnswer {
  /** Milliseconds of cores that it took. */
  busy: number;
  thread?: number;
  wal?: WalLook;
  backups?: BackupsLook;
  error?: ErrorReport;
}
