import { createHash } from 'node:crypto';
import { CorruptObjectError } from '../errors.js';
import { formatLsn, type Lsn, parseLsn } from '../lsn.js';
import type { WalRange } from './manifest.js';

/** Version of what `backup.json` and the objects that it names are. */
export const BACKUP_FORMAT = 1;

/** Where a backup begins or ends. */
export interface BackupPoint {
  lsn: Lsn;
  timeline: number;
  /** ISO 8601 in UTC. */
  time: string;
}

/** A tablespace besides the default ones. */
export interface BackupTablespace {
  oid: number;
  /** Where it was on the server; below the data directory (`pg_tblspc/OID`) if it is in place. */
  location: string;
  inPlace: boolean;
}

/** One of the server's tars, stored as `NAME.CODEC.0000` and so on. */
export interface BackupTar {
  /** `base.tar`, `16388.tar`. */
  name: string;
  /** Of a tablespace. */
  oid?: number;
  /** Bytes of tar, which is what the frames hold. */
  size: number;
  /** Names of its volumes, in their order. */
  volumes: string[];
}

/** An object of a backup, as it is stored: compressed, and encrypted if that was asked for. */
export interface BackupObject {
  /** Below `backups/ID/`. */
  name: string;
  /** Bytes. */
  size: number;
  /** In hex. */
  sha256: string;
}

/** A configuration file that the server has outside its data directory. */
export interface OutsideFile {
  /** Absolute, on the server. */
  path: string;
  /** `directory`: one that is included; `tls`: a certificate or key, which is never read. */
  kind: 'settings' | 'authentication' | 'directory' | 'tls';
  /** The object with its content; absent where the role was not allowed to read it. */
  object?: string;
}

/**
 * `backup.json`: the commit record of a base backup. It is created last; a backup without it does
 * not exist. It is not encrypted: what expires backups has no keys.
 */
export interface BackupRecord {
  id: string;
  /** The backup that an incremental one is based on. */
  parent?: string;
  /** Where that one began, as the server wrote it into the label: it has all that changed since. */
  incrementalFrom?: { lsn: Lsn; timeline: number };
  systemId: bigint;
  /** As the server's `server_version_num`. */
  serverVersion: number;
  /** Bytes. */
  segmentSize: number;
  /** XLOG_BLCKSZ, bytes. */
  blockSize: number;
  from: 'primary' | 'standby';
  label: string;
  /** REDO of its first checkpoint. */
  start: BackupPoint;
  /** Recovery must come this far before the server can start. */
  end: BackupPoint;
  /** WAL without which it is of no use, newest timeline first, as in its manifest. */
  walRanges: WalRange[];
  /** `included`: that WAL is in `base.tar`, below `pg_wal/`. */
  wal: 'archive' | 'included';
  codec: 'none' | 'gzip' | 'lz4' | 'zstd';
  encrypted: boolean;
  /** Whether the server has page checksums, and whether it compared them as it sent the pages. */
  pageChecksums: { enabled: boolean; checked: boolean };
  tablespaces: BackupTablespace[];
  tars: BackupTar[];
  /** All but this one. */
  objects: BackupObject[];
  outside: OutsideFile[];
  /** What was told about it when it was taken. */
  warnings: string[];
  /** Bytes of all tars. */
  size: number;
  /** Version of the walkeep that took it. */
  walkeep: string;
}

/** `20261127T201500F-3fa91c`: when it began (UTC), F full or I incremental, and what makes it unique. */
const ID = /^\d{8}T\d{6}[FI]-[0-9a-f]{6}$/;

export function isBackupId(text: string): boolean {
  return ID.test(text);
}

/** @param unique six hex digits */
export function backupId(began: Date, kind: 'F' | 'I', unique: string): string {
  const stamp = began.toISOString().slice(0, 19).replace(/[-:]/g, '');
  return `${stamp}${kind}-${unique}`;
}

/** When the backup of an ID began, by the clock of who took it. */
export function beganAt(id: string): Date {
  const [, y, mo, d, h, mi, s] = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)/.exec(id) ?? [];
  return new Date(`${y}-${mo}-${d}T${h}:${mi}:${s}Z`);
}

/**
 * JSON on lines of its own, LSNs as PostgreSQL prints them, and behind it a line with the SHA-256 of
 * all bytes before that line.
 */
export function backupRecordBytes(record: BackupRecord): Buffer {
  const json = JSON.stringify({ format: BACKUP_FORMAT, ...record }, plain, 1);
  const text = `${json}\n`;
  return Buffer.from(`${text}sha256 ${createHash('sha256').update(text).digest('hex')}\n`);
}

function plain(key: string, value: unknown): unknown {
  if (typeof value !== 'bigint') return value;
  return key === 'systemId' ? String(value) : formatLsn(value);
}

/**
 * @param name of the object, for messages
 * @throws CorruptObjectError for one that is damaged, cut, or of a newer walkeep
 */
export function parseBackupRecord(bytes: Buffer, name = 'backup.json'): BackupRecord {
  const wrong = (why: string, cause?: unknown) =>
    new CorruptObjectError(`"${name}" is no whole record of a backup: ${why}`, {
      ...{ key: name, hint: 'Take another backup; this one cannot be proven.' },
      ...(cause === undefined ? {} : { cause }),
    });
  const cut = bytes.lastIndexOf(0x0a, bytes.length - 2) + 1;
  const sum = /^sha256 ([0-9a-f]{64})\n$/.exec(bytes.toString('latin1', cut))?.[1];
  if (sum === undefined) throw wrong('its last line is no checksum');
  if (createHash('sha256').update(bytes.subarray(0, cut)).digest('hex') !== sum) {
    throw wrong('it is not what its checksum was made of');
  }
  try {
    const json = JSON.parse(bytes.toString('utf8', 0, cut)) as Record<string, unknown>;
    const { format, ...fields } = json;
    if (format !== BACKUP_FORMAT) throw wrong(`its format ${format} is not known here`);
    return recordOf(fields as unknown as Record<keyof BackupRecord, never>);
  } catch (e) {
    throw e instanceof CorruptObjectError ? e : wrong((e as Error).message, e);
  }
}

/** Only the types that JSON has not: the checksum says that a walkeep wrote the rest. */
function recordOf(fields: Record<keyof BackupRecord, never>): BackupRecord {
  const point = ({ lsn, ...rest }: { lsn: string; timeline: number; time: string }) => ({
    ...rest,
    lsn: parseLsn(lsn),
  });
  const range = (one: { timeline: number; start: string; end: string }) => ({
    timeline: one.timeline,
    start: parseLsn(one.start),
    end: parseLsn(one.end),
  });
  const from = fields.incrementalFrom as unknown as Parameters<typeof point>[0] | undefined;
  return {
    ...(fields as unknown as BackupRecord),
    ...(from ? { incrementalFrom: { lsn: parseLsn(from.lsn), timeline: from.timeline } } : {}),
    systemId: BigInt(fields.systemId),
    start: point(fields.start),
    end: point(fields.end),
    walRanges: (fields.walRanges as unknown as Parameters<typeof range>[0][]).map(range),
  };
}
