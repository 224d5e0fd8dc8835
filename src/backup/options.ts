import type { ArchiveKeys } from '../archive/places/open-archive.js';
import { type BackupRecord, isBackupId } from '../base/backup-record.js';
import { requireLevel } from '../codec/codecs.js';
import type { ReplicationConnection } from '../connection/connection.js';
import type { ReplicationMode } from '../connection/startup.js';
import { UsageError } from '../errors.js';
import {
  aFunction,
  aName,
  aNumber,
  anObject,
  aSignal,
  aSwitch,
  aText,
  aTime,
  type Checks,
  checkOptions,
  listOf,
  oneOf,
  required,
} from '../options.js';
import type { ServerNotice } from '../protocol/backend-message.js';
import { COMPRESSIONS, type Compression } from '../wal/file-name.js';

/** What a backup is compressed with. */
export interface TakenCompression {
  method: Compression;
  /** The method's own scale; absent for its default. */
  level?: number;
}

/** How a base backup is taken. Times are milliseconds. */
export interface TakeBackupOptions {
  /** The archive that it belongs to, with the WAL of the same server. */
  place: string;
  /**
   * Makes a connection: `physical` for the backup, `off` for what needs SQL. What the server tells
   * beside its answers is to be passed on to `onNotice`.
   */
  connect(
    mode: ReplicationMode,
    onNotice: (notice: ServerNotice) => void,
  ): Promise<ReplicationConnection>;
  /** Default: its ID. One line. */
  label?: string;
  /** Default `fast`. */
  checkpoint?: 'fast' | 'spread';
  /**
   * Only what changed since another backup (PostgreSQL 17 and newer): since the `last` one, the last
   * `full` one, or that with this ID. Default: everything.
   */
  incremental?: 'last' | 'full' | (string & {});
  /**
   * Take a full one, and say why, where the server or the archive has not what an incremental one
   * needs. Default true.
   */
  fallback?: boolean;
  /** What opens the manifest of that other backup, where it is encrypted. */
  keys?: ArchiveKeys;
  /** kB a second. */
  maxRate?: number;
  /** Default zstd, or gzip:1 where Node.js has no zstd of its own (before 22.15). */
  compression?: TakenCompression;
  /** age recipients (`age1…`): all but its record is encrypted to each of them. */
  recipients?: readonly string[];
  /**
   * `archive` (default): the backup exists once the archive has the WAL that it needs, durable.
   * `include`: the server puts that WAL into the backup.
   */
  wal?: 'archive' | 'include';
  /** How long to wait for that WAL. Default 300000. */
  walTimeout?: number;
  /**
   * Of each file in the manifest. Default CRC32C, as of pg_basebackup; SHA256 takes the server about
   * twice the CPU time of a backup. What is stored has SHA-256 of its own either way.
   */
  manifestChecksums?: 'CRC32C' | 'SHA256';
  /** Not to be expired. */
  keep?: boolean;
  /** The server compares the checksums of all pages that it reads, where it has any. Default true. */
  verifyChecksums?: boolean;
  /**
   * They are compared here too, as they come: those that are wrong are named, and fail the backup
   * unless `verifyChecksums` is false.
   */
  verifyPages?: boolean;
  /** Take a cluster beside the one that the store has, as after pg_upgrade. */
  newSystem?: boolean;
  /** Use also a store that cannot create only what is absent. */
  unfenced?: boolean;
  /** Stops it; nothing is left behind. */
  signal?: AbortSignal;
  /** A few times a second. */
  onProgress?(progress: BackupProgress): void;
  /** Something that a person should know, and that does not end anything. */
  onWarning?(warning: BackupWarning): void;
}

export interface BackupWarning {
  code: string;
  message: string;
  hint?: string;
}

/** How far a backup is. */
export interface BackupProgress {
  /** `checkpoint`: the server makes one first. `wal`: the archive does not have all of it yet. */
  phase: 'checkpoint' | 'copy' | 'store' | 'wal' | 'commit';
  id: string;
  /** Bytes of its tars that came. */
  bytes: number;
  /** As the server estimated. Absent before it has. */
  total?: number;
  /** Bytes as they are stored, and files. */
  stored: number;
  files: number;
  /** The file that is waited for. */
  waitingFor?: string;
}

/** A backup that exists. */
export interface TakenBackup {
  id: string;
  record: BackupRecord;
  /** Bytes of all its objects. */
  stored: number;
  files: number;
  /** Milliseconds: all of it, and until the last byte came. */
  duration: { whole: number; copy: number };
  /** Unfinished ones that were removed. */
  cleaned: string[];
  /** Why it is a full one though an incremental one was asked for. */
  fallback?: BackupWarning;
}

const CHECKS: Checks<TakeBackupOptions> = {
  place: required(aName),
  connect: required(aFunction),
  label: aText,
  checkpoint: oneOf('fast', 'spread'),
  incremental: aName,
  fallback: aSwitch,
  keys: anObject,
  maxRate: aNumber(32, 1_048_576),
  compression: anObject,
  recipients: listOf(aName, 'a list of age recipients'),
  wal: oneOf('archive', 'include'),
  walTimeout: aTime,
  manifestChecksums: oneOf('CRC32C', 'SHA256'),
  keep: aSwitch,
  verifyChecksums: aSwitch,
  verifyPages: aSwitch,
  newSystem: aSwitch,
  unfenced: aSwitch,
  signal: aSignal,
  onProgress: aFunction,
  onWarning: aFunction,
};

const COMPRESSION: Checks<TakenCompression> = {
  method: required(oneOf(...COMPRESSIONS)),
  level: aNumber(-131072, 22),
};

/** True for what an incremental backup may be based on. */
function isParent(text: string): boolean {
  return text === 'last' || text === 'full' || isBackupId(text);
}

/** @throws UsageError */
export function checkTakeOptions(options: TakeBackupOptions): void {
  checkOptions('backup', options, CHECKS);
  const { compression, incremental } = options;
  if (incremental !== undefined && !isParent(incremental)) {
    throw new UsageError(`there is no backup "${incremental}" to base an incremental one on`, {
      hint: 'It is "last", "full", or an ID as "walkeep backups" prints them.',
    });
  }
  if (!compression) return;
  checkOptions('backup, compression', compression, COMPRESSION);
  const { method, level } = compression;
  if (method !== 'none' && level !== undefined) requireLevel('backup', method, level);
}
