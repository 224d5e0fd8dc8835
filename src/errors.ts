import { withoutSecrets } from './text.js';

/** A log sequence number: a byte position in the WAL, as PostgreSQL's XLogRecPtr. */
type LsnLike = bigint;

/** What an error may carry beside its message; a field that does not apply is absent. */
export interface ErrorDetails {
  /** The WAL position it is about. */
  lsn?: LsnLike;
  /** The file or directory it is about. */
  path?: string;
  /** The object in a store it is about. */
  key?: string;
  expected?: string;
  actual?: string;
  /** What the operator can do. One sentence. */
  hint?: string;
  /** More about the cause, for example the server's DETAIL. */
  detail?: string;
  cause?: unknown;
}

/** All codes of errors, by which callers tell them apart. */
export type ErrorCode =
  | 'WK_ARCHIVE_ACCESS'
  | 'WK_ARCHIVE_BUSY'
  | 'WK_AUTHENTICATION'
  | 'WK_BACKFILL'
  | 'WK_CONFIG'
  | 'WK_CONNECTION'
  | 'WK_CONNINFO'
  | 'WK_CORRUPT_OBJECT'
  | 'WK_CORRUPT_WAL'
  | 'WK_DISK_FULL'
  | 'WK_ENCRYPTED'
  | 'WK_FSYNC'
  | 'WK_GAP'
  | 'WK_INTERNAL'
  | 'WK_LEASE_LOST'
  | 'WK_LOCKED'
  | 'WK_NOT_SUPPORTED'
  | 'WK_NO_INCREMENTAL'
  | 'WK_PARSE'
  | 'WK_PROTOCOL'
  | 'WK_REWRITE'
  | 'WK_SERVER'
  | 'WK_SINK'
  | 'WK_STANDBY'
  | 'WK_STORAGE'
  | 'WK_STORE_ACCESS'
  | 'WK_STORE_CONFLICT'
  | 'WK_STORE_UNCERTAIN'
  | 'WK_STORE_UNSUPPORTED'
  | 'WK_STREAM_POSITION'
  | 'WK_SYSTEM_IDENTIFIER'
  | 'WK_TARGET'
  | 'WK_TIMELINE_BEHIND'
  | 'WK_TIMELINE_CONFLICT'
  | 'WK_TIMEOUT'
  | 'WK_TLS'
  | 'WK_UNREACHABLE'
  | 'WK_USAGE'
  | 'WK_WAL_REMOVED';

/**
 * Base of every error that walkeep throws. `code` is stable and is what callers match;
 * `retryable` says whether the same call can succeed later with nothing changed by hand.
 */
export abstract class WalkeepError extends Error {
  abstract readonly code: ErrorCode;
  readonly retryable: boolean = false;
  readonly lsn?: LsnLike;
  readonly path?: string;
  readonly key?: string;
  readonly expected?: string;
  readonly actual?: string;
  readonly hint?: string;
  readonly detail?: string;

  constructor(message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = new.target.name;
    if (details.lsn !== undefined) this.lsn = details.lsn;
    if (details.path !== undefined) this.path = details.path;
    if (details.key !== undefined) this.key = details.key;
    if (details.expected !== undefined) this.expected = details.expected;
    if (details.actual !== undefined) this.actual = details.actual;
    if (details.hint !== undefined) this.hint = details.hint;
    if (details.detail !== undefined) this.detail = details.detail;
  }
}

/** A flag, option or argument is wrong. */
export class UsageError extends WalkeepError {
  readonly code = 'WK_USAGE';

  constructor(message: string, details?: ErrorDetails) {
    super(withoutSecrets(message), details);
  }
}

/** A text that should be an LSN, a timeline, a history file or a WAL file name is not one. */
export class ParseError extends WalkeepError {
  readonly code = 'WK_PARSE';
}

/** A connection setting (keyword, URI, service file, password file) is wrong or contradictory. */
export class ConninfoError extends WalkeepError {
  readonly code = 'WK_CONNINFO';

  constructor(message: string, details?: ErrorDetails) {
    super(withoutSecrets(message), details);
  }
}

/** A fault in a configuration file, and where it is. It does not show the value, which may be secret. */
export interface ConfigFault {
  /** From 1; columns in characters, as an editor counts them. */
  line: number;
  column: number;
  /** `servers.shop.slot`; empty for the file as a whole. */
  at: string;
  message: string;
}

/** A configuration file is not valid. */
export class ConfigError extends WalkeepError {
  readonly code = 'WK_CONFIG';
  override readonly path: string;
  readonly faults: readonly ConfigFault[];

  constructor(message: string, path: string, faults: readonly ConfigFault[]) {
    super(message);
    this.path = path;
    this.faults = faults;
  }
}

/** Known and asked for, but not supported here; going on without it would weaken something. */
export class NotSupportedError extends WalkeepError {
  readonly code = 'WK_NOT_SUPPORTED';
}

/** What an incremental backup needs of the server or of the archive is not there. */
export class NoIncrementalError extends WalkeepError {
  readonly code = 'WK_NO_INCREMENTAL';
}

/** No connection could be made, or it broke. */
export class ConnectionError extends WalkeepError {
  readonly code = 'WK_CONNECTION';
  override readonly retryable = true;
}

/** The peer said nothing for longer than the receive timeout, or connecting took too long. */
export class TimeoutError extends WalkeepError {
  readonly code = 'WK_TIMEOUT';
  override readonly retryable = true;
}

/** TLS could not be set up or the certificate was not accepted. */
export class TlsError extends WalkeepError {
  readonly code = 'WK_TLS';
}

/** The server refused who we are, or we refused how it asked. */
export class AuthenticationError extends WalkeepError {
  readonly code = 'WK_AUTHENTICATION';
  /** True when a password is needed and none was given: the CLI prompts for it. */
  readonly needsPassword: boolean;
  /** The server's; empty where the refusal is ours. */
  readonly sqlstate: string;
  constructor(
    message: string,
    details: ErrorDetails & { needsPassword?: boolean; sqlstate?: string | undefined } = {},
  ) {
    super(message, details);
    this.needsPassword = details.needsPassword ?? false;
    this.sqlstate = details.sqlstate ?? '';
  }
}

/** The bytes from the server are not the protocol. */
export class ProtocolError extends WalkeepError {
  readonly code = 'WK_PROTOCOL';
  override readonly retryable = true;
}

/**
 * SQLSTATEs of states that pass: a connection that broke, a rollback, too few resources, a slot or
 * lock in use, a shutdown or start, a failing disk. All others want a person: a right, a setting, a
 * name, and what the server states without a code (XX000), such as a start position ahead of its
 * WAL or on a timeline that is not in its history.
 */
const PASSING = /^(08|40|53)|^(55006|55P03|57014|57P0[1235]|58000|58030)$/;

/** An ErrorResponse of the server. `sqlstate` is its five-character code. */
export class ServerError extends WalkeepError {
  readonly code: ErrorCode = 'WK_SERVER';
  override readonly retryable: boolean;
  readonly sqlstate: string;
  readonly severity: string;
  constructor(
    message: string,
    details: ErrorDetails & { sqlstate?: string | undefined; severity?: string | undefined } = {},
  ) {
    super(message, details);
    this.sqlstate = details.sqlstate ?? '';
    this.retryable = PASSING.test(this.sqlstate);
    this.severity = details.severity ?? 'ERROR';
  }
}

/** The server no longer has the WAL asked for: the archive has a hole. The alarm. */
export class WalRemovedError extends ServerError {
  override readonly code = 'WK_WAL_REMOVED';
  /** Name of the segment file that the server looked for in vain, where it says so. */
  readonly file?: string;
  constructor(
    message: string,
    details: ConstructorParameters<typeof ServerError>[1] & { file?: string | undefined } = {},
  ) {
    super(message, details);
    if (details.file !== undefined) this.file = details.file;
  }
}

/** The WAL is of another cluster than the directory. */
export class SystemIdentifierError extends WalkeepError {
  readonly code = 'WK_SYSTEM_IDENTIFIER';
}

/** The server is a standby, and what was asked for needs a primary. */
export class StandbyError extends WalkeepError {
  readonly code = 'WK_STANDBY';
}

/** The server's timeline history contradicts what is stored here. */
export class TimelineConflictError extends WalkeepError {
  readonly code = 'WK_TIMELINE_CONFLICT';
}

/** The server has not reached the stored timeline: an old primary, or a standby that follows late. */
export class TimelineBehindError extends WalkeepError {
  readonly code = 'WK_TIMELINE_BEHIND';
  override readonly retryable = true;
}

/** Going on would leave WAL missing in the archive. */
export class GapError extends WalkeepError {
  readonly code = 'WK_GAP';
}

/** The server has removed WAL that another archive may have, which cannot be asked now. */
export class BackfillError extends WalkeepError {
  readonly code = 'WK_BACKFILL';
  override readonly retryable = true;
}

/** WAL that should be in the archive is not: recovery must not take that for the end. */
export class MissingWalError extends GapError {
  /** It may be about to come. */
  override readonly retryable: boolean;
  constructor(message: string, retryable: boolean, hint: string) {
    super(message, { hint });
    this.retryable = retryable;
  }
}

/** The server sent other bytes for a position that was acknowledged as flushed. */
export class RewriteError extends WalkeepError {
  readonly code = 'WK_REWRITE';
}

/** The stream did not go on where it should: a gap or a step back in it. */
export class StreamPositionError extends WalkeepError {
  readonly code = 'WK_STREAM_POSITION';
  override readonly retryable = true;
}

/** Another receiver holds the directory. */
export class DirectoryLockedError extends WalkeepError {
  readonly code = 'WK_LOCKED';
}

/** The directory or a file in it cannot be used as it is. */
export class StorageError extends WalkeepError {
  readonly code: ErrorCode = 'WK_STORAGE';
}

/** No space, or the quota is used up: a state that passes. */
export class DiskFullError extends StorageError {
  override readonly code = 'WK_DISK_FULL';
  override readonly retryable = true;

  constructor(message: string, details?: ErrorDetails) {
    const hint =
      'Free space: what receives or ships then goes on by itself, anything else is begun again.';
    super(message, { hint, ...details });
  }
}

/** fsync failed: what the page cache holds proves nothing any more, the process must end. */
export class FsyncError extends StorageError {
  override readonly code = 'WK_FSYNC';
}

/**
 * The archive could not be asked: unreachable, not mounted, not readable. A state that may pass,
 * and no answer about what the archive holds.
 */
export class ArchiveAccessError extends StorageError {
  override readonly code = 'WK_ARCHIVE_ACCESS';
  override readonly retryable = true;
}

/** No way leads from any backup that is here to the target of a recovery. Nothing was written. */
export class UnreachableTargetError extends WalkeepError {
  readonly code = 'WK_UNREACHABLE';
}

/** The file, or the backup, could not be put where PostgreSQL wants it. */
export class TargetError extends StorageError {
  override readonly code = 'WK_TARGET';
}

/** Stored or received WAL is damaged. */
export class CorruptWalError extends WalkeepError {
  readonly code = 'WK_CORRUPT_WAL';
}

/**
 * The store gave no answer that can be relied on: a timeout, a broken connection, a fault of the
 * service. Nothing is known of what was asked; what was to be stored may or may not be there.
 */
export class StoreUncertainError extends WalkeepError {
  readonly code = 'WK_STORE_UNCERTAIN';
  override readonly retryable = true;
}

/**
 * The store refuses us or is not what was named: credentials, rights, a bucket or host that does not
 * exist, a certificate. It says nothing about what the store holds.
 */
export class StoreAccessError extends WalkeepError {
  readonly code = 'WK_STORE_ACCESS';
}

/** Under the key stands other content than the one to be stored. Nothing was overwritten. */
export class StoreConflictError extends WalkeepError {
  readonly code = 'WK_STORE_CONFLICT';
}

/** The store cannot do what keeping the archive safe needs, such as creating only what is absent. */
export class StoreUnsupportedError extends WalkeepError {
  readonly code = 'WK_STORE_UNSUPPORTED';
}

/**
 * An object, stored or to be stored, is not what it was said to be: damaged, cut short, or another
 * one's.
 */
export class CorruptObjectError extends WalkeepError {
  readonly code = 'WK_CORRUPT_OBJECT';
}

/**
 * Another works on the same base backups: an expire that would remove what is needed, or somebody who
 * needs what would be removed.
 */
export class ArchiveBusyError extends WalkeepError {
  readonly code = 'WK_ARCHIVE_BUSY';
  override readonly retryable = true;
}

/** What kept others from removing what is needed was ended by one of them, after a long silence. */
export class LeaseLostError extends WalkeepError {
  readonly code = 'WK_LEASE_LOST';
  override readonly retryable = true;
}

/** A method of a caller's WalSink failed; what it threw is the cause. */
export class SinkError extends WalkeepError {
  readonly code = 'WK_SINK';
}

/** A defect of walkeep or of a caller's handler: trying again would not help. */
export class InternalError extends WalkeepError {
  readonly code = 'WK_INTERNAL';
}

/**
 * What is stored is encrypted, and none of the identities that were given opens it, or none could be
 * had.
 */
export class EncryptedError extends WalkeepError {
  readonly code = 'WK_ENCRYPTED';
}
