import { ProtocolError, UsageError } from '../errors.js';
import { type Lsn, parseLsn } from '../lsn.js';
import {
  aNumber,
  anObject,
  aSwitch,
  aText,
  type Checks,
  checkOptions,
  oneOf,
  required,
} from '../options.js';
import type { QueryResult } from './replication.js';

/** Options of BASE_BACKUP. The server's own defaults are those of the command, not of pg_basebackup. */
export interface BaseBackupOptions {
  /** Goes into backup_label: at most 1024 bytes, on one line. */
  label: string;
  /** Whether the checkpoint that comes first is made at once or spread over time. */
  checkpoint: 'fast' | 'spread';
  /** Have the server measure everything before it begins: the sizes of the tablespaces. */
  progress?: boolean;
  /** Put the WAL that is needed into base.tar. */
  wal?: boolean;
  /** Don't wait until the server's archiving has stored that WAL. */
  noWait?: boolean;
  /** kB a second. */
  maxRate?: number;
  /** Put tablespace_map into base.tar, in the place of symbolic links. */
  tablespaceMap?: boolean;
  /** Default true. */
  verifyChecksums?: boolean;
  manifest?: 'yes' | 'no' | 'force-encode';
  manifestChecksums?: 'NONE' | 'CRC32C' | 'SHA224' | 'SHA256' | 'SHA384' | 'SHA512';
  /** By the server, from PostgreSQL 15 on. */
  compression?: BackupCompression;
  /** Against a manifest that was uploaded before, from PostgreSQL 17 on. */
  incremental?: boolean;
}

export interface BackupCompression {
  method: 'gzip' | 'lz4' | 'zstd';
  level?: number;
  /** Threads; zstd only. */
  workers?: number;
}

/** Where a backup begins or ends. */
export interface BackupPosition {
  lsn: Lsn;
  timeline: number;
}

/** One directory tree of a backup, which comes as one tar. */
export interface BackupTablespace {
  /** Undefined: the data directory. */
  oid: number | undefined;
  /** Where it lies on the server; relative if it lies in the data directory. Its bytes in latin1. */
  location: string | undefined;
  /** Bytes, as estimated before; undefined unless `progress` was asked for. */
  size: number | undefined;
  /** Of PolarDB alone: on the disk of the node, or on the storage that all nodes share. */
  polar?: 'local' | 'shared';
}

const PG14 = 140000;
/** The first with parenthesised options, and with one COPY for all. */
const PG15 = 150000;
const PG17 = 170000;

/** MAXPGPATH, as do_pg_backup_start checks it. */
const MAX_LABEL = 1024;

const CHECKS: Checks<BaseBackupOptions> = {
  label: required(aText),
  checkpoint: required(oneOf('fast', 'spread')),
  progress: aSwitch,
  wal: aSwitch,
  noWait: aSwitch,
  // MAX_RATE_LOWER and MAX_RATE_UPPER of backup/basebackup.h.
  maxRate: aNumber(32, 1048576),
  tablespaceMap: aSwitch,
  verifyChecksums: aSwitch,
  manifest: oneOf('yes', 'no', 'force-encode'),
  manifestChecksums: oneOf('NONE', 'CRC32C', 'SHA224', 'SHA256', 'SHA384', 'SHA512'),
  compression: anObject,
  incremental: aSwitch,
};
const COMPRESSION_CHECKS: Checks<BackupCompression> = {
  method: required(oneOf('gzip', 'lz4', 'zstd')),
  // Of zstd; the others have fewer, which the server knows best.
  level: aNumber(-131072, 22),
  workers: aNumber(0, 256),
};

/** True if the manifest was asked for: a server sends none by itself. */
export function wantsManifest({ manifest = 'no' }: BaseBackupOptions): boolean {
  return manifest !== 'no';
}

/** True if all archives come in one COPY, whose messages say what they are. */
export function hasFramedBackup(serverVersion: number): boolean {
  return serverVersion >= PG15;
}

/** @throws UsageError for options that are wrong, contradict each other, or that the server lacks */
export function baseBackupCommand(options: BaseBackupOptions, serverVersion: number): string {
  check(options, serverVersion);
  const words = serverVersion < PG15 ? keywords(options) : genericOptions(options);
  return serverVersion < PG15
    ? ['BASE_BACKUP', ...words].join(' ')
    : `BASE_BACKUP (${words.join(', ')})`;
}

/** Before an incremental backup, in the same session. @throws UsageError if the server is too old */
export function uploadManifestCommand(serverVersion: number): string {
  requireVersion('an incremental backup', PG17, serverVersion);
  return 'UPLOAD_MANIFEST';
}

function requireVersion(what: string, needed: number, serverVersion: number): void {
  if (serverVersion >= needed) return;
  throw new UsageError(`${what} needs PostgreSQL ${needed / 10000} or newer`);
}

function check(options: BaseBackupOptions, serverVersion: number): void {
  checkOptions('baseBackup', options, CHECKS);
  const { label, compression, manifestChecksums, incremental } = options;
  // In a label of two lines the second could be read as the START TIME or any other.
  if (/[\0\n\r]/.test(label) || Buffer.byteLength(label) > MAX_LABEL) {
    throw new UsageError('the label of a backup must be one line of at most 1024 bytes');
  }
  if (manifestChecksums !== undefined && !wantsManifest(options)) {
    throw new UsageError('manifest checksums require a backup manifest');
  }
  if (compression) checkOptions('baseBackup: compression', compression, COMPRESSION_CHECKS);
  if (compression?.workers !== undefined && compression.method !== 'zstd') {
    throw new UsageError(`compression by ${compression.method} has no workers`);
  }
  requireVersion('a base backup', PG14, serverVersion);
  if (compression) requireVersion('compression by the server', PG15, serverVersion);
  if (incremental) requireVersion('an incremental backup', PG17, serverVersion);
}

/** As repl_gram.y of PostgreSQL 14 wants them, in any order. */
function keywords(options: BaseBackupOptions): string[] {
  const { label, checkpoint, maxRate, manifest, manifestChecksums } = options;
  return [
    `LABEL ${quote(label)}`,
    ...(options.progress ? ['PROGRESS'] : []),
    ...(checkpoint === 'fast' ? ['FAST'] : []),
    ...(options.wal ? ['WAL'] : []),
    ...(options.noWait ? ['NOWAIT'] : []),
    ...(maxRate === undefined ? [] : [`MAX_RATE ${maxRate}`]),
    ...(options.tablespaceMap ? ['TABLESPACE_MAP'] : []),
    ...(options.verifyChecksums === false ? ['NOVERIFY_CHECKSUMS'] : []),
    ...(manifest === undefined ? [] : [`MANIFEST ${quote(manifest)}`]),
    ...(manifestChecksums === undefined ? [] : [`MANIFEST_CHECKSUMS ${quote(manifestChecksums)}`]),
  ];
}

/** As basebackup.c (parse_basebackup_options) reads them from PostgreSQL 15 on. */
function genericOptions(options: BaseBackupOptions): string[] {
  const { label, checkpoint, maxRate, manifest, manifestChecksums, compression } = options;
  const detail = compression ? compressionDetail(compression) : '';
  return [
    `LABEL ${quote(label)}`,
    ...(options.progress ? ['PROGRESS'] : []),
    `CHECKPOINT ${quote(checkpoint)}`,
    ...(options.wal ? ['WAL'] : []),
    ...(options.noWait ? ['WAIT 0'] : []),
    ...(maxRate === undefined ? [] : [`MAX_RATE ${maxRate}`]),
    ...(options.tablespaceMap ? ['TABLESPACE_MAP'] : []),
    ...(options.verifyChecksums === false ? ['VERIFY_CHECKSUMS 0'] : []),
    ...(manifest === undefined ? [] : [`MANIFEST ${quote(manifest)}`]),
    ...(manifestChecksums === undefined ? [] : [`MANIFEST_CHECKSUMS ${quote(manifestChecksums)}`]),
    ...(options.incremental ? ['INCREMENTAL'] : []),
    `TARGET 'client'`,
    ...(compression ? [`COMPRESSION ${quote(compression.method)}`] : []),
    ...(detail === '' ? [] : [`COMPRESSION_DETAIL ${quote(detail)}`]),
  ];
}

function compressionDetail({ level, workers }: BackupCompression): string {
  return [
    ...(level === undefined ? [] : [`level=${level}`]),
    ...(workers === undefined ? [] : [`workers=${workers}`]),
  ].join(',');
}

/** A string of the replication grammar, in which a backslash is nothing special. */
function quote(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}

/** @param what `start` or `end`, for messages. @throws ProtocolError */
export function parseBackupPosition(result: QueryResult, what: string): BackupPosition {
  const [row] = result.rows;
  if (result.rows.length !== 1 || row?.length !== 2) {
    throw new ProtocolError(
      `could not read the ${what} of the backup: got ${result.rows.length} rows and ${row?.length ?? 0} fields, expected 1 row and 2 fields`,
    );
  }
  const [lsn, timeline] = row.map(latin1);
  try {
    return { lsn: parseLsn(lsn ?? ''), timeline: whole(timeline, 0xffff_ffff, 1) };
  } catch (cause) {
    throw new ProtocolError(`could not read the ${what} of the backup: ${lsn}, ${timeline}`, {
      cause,
    });
  }
}

/**
 * The rows are `oid, location, kB`, NULL for the data directory, which comes last. PolarDB has a
 * fourth column, and behind that row another one for its shared storage (basebackup_copy.c there).
 * @throws ProtocolError
 */
export function parseBackupTablespaces(result: QueryResult): BackupTablespace[] {
  const wrong = (why: string, cause?: unknown) =>
    new ProtocolError(`the list of tablespaces from the server is wrong: ${why}`, { cause });
  const columns = result.fields.length;
  if (columns !== 3 && columns !== 4) throw wrong(`it has ${columns} columns`);
  const names = new Set<string>();
  const tablespaces = result.rows.map((row) => {
    if (row.length !== columns) throw wrong('a row is too short or too long');
    let tablespace: BackupTablespace;
    try {
      tablespace = tablespaceOf(row);
    } catch (cause) {
      throw wrong((cause as Error).message, cause);
    }
    const name = archiveName(tablespace);
    if (names.has(name)) throw wrong(`"${name}" would come twice`);
    names.add(name);
    return tablespace;
  });
  if (!names.has('base.tar')) throw wrong('the data directory is not in it');
  return tablespaces;
}

function tablespaceOf(row: readonly (Buffer | null)[]): BackupTablespace {
  const [oid, location, kilobytes, shared] = row.map(latin1);
  if ((oid === undefined) !== (location === undefined)) {
    throw new Error('a tablespace has no OID or no location');
  }
  return {
    oid: oid === undefined ? undefined : whole(oid, 0xffff_ffff, 1),
    location,
    size:
      kilobytes === undefined ? undefined : whole(kilobytes, Number.MAX_SAFE_INTEGER / 1024) * 1024,
    ...(row.length < 4 ? {} : { polar: shared === '1' ? 'shared' : 'local' }),
  };
}

/** What PostgreSQL 15 and newer, and PolarDB, call the tar of a tablespace. */
export function archiveName({ oid, polar }: BackupTablespace): string {
  if (oid !== undefined) return `${oid}.tar`;
  return polar === 'shared' ? 'data.tar' : 'base.tar';
}

function whole(text: string | undefined, most: number, least = 0): number {
  const value = /^\d{1,16}$/.test(text ?? '') ? Number(text) : Number.NaN;
  if (!(value >= least && value <= most)) throw new Error(`not a number in range: ${text}`);
  return value;
}

function latin1(value: Buffer | null): string | undefined {
  return value?.toString('latin1');
}
