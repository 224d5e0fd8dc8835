import { createHash } from 'node:crypto';
import { CorruptObjectError } from '../errors.js';
import { type Lsn, parseLsn } from '../lsn.js';
import { isInside } from './tar.js';

/** What a base backup's manifest says of one file. */
export interface ManifestFile {
  /** Below the data directory; its bytes in latin1, as the names of a tar are. */
  path: string;
  /** Bytes. */
  size: number;
  /** As the server wrote it: `2026-11-28 01:00:00 GMT`. */
  lastModified: string;
  /** Undefined in a manifest without checksums. */
  checksum: { algorithm: ManifestAlgorithm; hex: string } | undefined;
}

/** Of MANIFEST_CHECKSUMS; CRC32C is in the byte order of the server. */
export type ManifestAlgorithm = 'CRC32C' | 'SHA224' | 'SHA256' | 'SHA384' | 'SHA512';

/** WAL that is needed to make the backup consistent. */
export interface WalRange {
  timeline: number;
  start: Lsn;
  end: Lsn;
}

/** `backup_manifest`, whose bytes are kept as they came: a rewritten one would have another sum. */
export interface BackupManifest {
  /** 1 up to PostgreSQL 16, 2 from 17 on. */
  version: number;
  /** Undefined in version 1. */
  systemId: bigint | undefined;
  files: ManifestFile[];
  /** Newest timeline first. */
  walRanges: WalRange[];
}

const DIGITS: Readonly<Record<ManifestAlgorithm, number>> = {
  CRC32C: 8,
  SHA224: 56,
  SHA256: 64,
  SHA384: 96,
  SHA512: 128,
};

/** The last line: the SHA-256 of all lines before it (backup_manifest.c, SendBackupManifest). */
const LAST_LINE = /^"Manifest-Checksum": "([0-9a-f]{64})"\}\n$/;

/**
 * Reads a manifest and proves by its last line that it is whole.
 * @param name of the object, for messages
 * @param repeated whether one path may stand for several files, in the order in which they came:
 *   PolarDB sends two data directories, and does not say which of them a file is in
 * @throws CorruptObjectError
 */
export function parseManifest(
  bytes: Buffer,
  name = 'backup_manifest',
  repeated: 'refused' | 'allowed' = 'refused',
): BackupManifest {
  const wrong = (why: string, cause?: unknown) =>
    new CorruptObjectError(`"${name}" is no whole backup manifest: ${why}`, {
      ...{ key: name, hint: 'Take another backup; this one cannot be proven.' },
      ...(cause === undefined ? {} : { cause }),
    });
  const cut = bytes.lastIndexOf(0x0a, bytes.length - 2) + 1;
  const sum = LAST_LINE.exec(bytes.toString('latin1', cut))?.[1];
  if (sum === undefined) throw wrong('its last line is no checksum');
  const actual = createHash('sha256').update(bytes.subarray(0, cut)).digest('hex');
  if (actual !== sum) throw wrong('it is not what its checksum was made of');
  const text = bytes.toString('utf8');
  try {
    const { files, rest } = filesOf(text);
    const { 'PostgreSQL-Backup-Manifest-Version': version, ...fields } = rest;
    if (version !== 1 && version !== 2) throw wrong(`version ${version} is not known`);
    const names = new Set(files.map(({ path }) => path));
    if (repeated === 'refused' && names.size < files.length) {
      throw wrong('a file is in it twice');
    }
    const walRanges = asArray(fields['WAL-Ranges']).map(rangeOf);
    return { version, systemId: systemIdOf(version, text), files, walRanges };
  } catch (e) {
    throw e instanceof CorruptObjectError ? e : wrong((e as Error).message, e);
  }
}

/** As servers write them: an entry is a line (backup_manifest.c, AddFileToBackupManifest). */
const FILE_LINE = /^\{ "(?:Encoded-)?Path": .*\}(,?)$/gm;

/**
 * Reads the entries one by one: as one document those of a hundred thousand files take as much again
 * as what is made of them. What is not written so is read as a whole.
 */
function filesOf(text: string): { files: ManifestFile[]; rest: Record<string, unknown> } {
  const files: ManifestFile[] = [];
  try {
    const others = text.replace(FILE_LINE, (line, comma: string) => {
      files.push(fileOf(JSON.parse(comma ? line.slice(0, -1) : line)));
      return '';
    });
    const rest = asObject(JSON.parse(others));
    if (asArray(rest.Files).length === 0) return { files, rest };
  } catch {
    // What is wrong is said of the whole.
  }
  const rest = asObject(JSON.parse(text));
  return { files: asArray(rest.Files).map(fileOf), rest };
}

/** From the text: as a number of JSON it would lose its last digits. */
function systemIdOf(version: number, text: string): bigint | undefined {
  if (version === 1) return undefined;
  const digits = /^"System-Identifier": (\d{1,20}),$/m.exec(text)?.[1];
  if (digits === undefined) throw new Error('it has no system identifier');
  return BigInt(digits);
}

function fileOf(entry: unknown): ManifestFile {
  const fields = asObject(entry);
  const path = pathOf(fields);
  const { Size: size, 'Last-Modified': lastModified } = fields;
  if (!isInside(path)) throw new Error(`a file is called ${JSON.stringify(path)}`);
  if (!Number.isSafeInteger(size) || (size as number) < 0) throw new Error(`size of "${path}"`);
  if (typeof lastModified !== 'string') throw new Error(`time of "${path}"`);
  return { path, size: size as number, lastModified, checksum: checksumOf(path, fields) };
}

function pathOf({ Path: path, 'Encoded-Path': encoded }: Record<string, unknown>): string {
  if (typeof path === 'string' && encoded === undefined) {
    return Buffer.from(path, 'utf8').toString('latin1');
  }
  const isHex = typeof encoded === 'string' && /^([0-9a-f]{2})+$/i.test(encoded);
  if (!isHex || path !== undefined) throw new Error('a file has no name, or two');
  return Buffer.from(encoded, 'hex').toString('latin1');
}

function checksumOf(path: string, fields: Record<string, unknown>): ManifestFile['checksum'] {
  const { 'Checksum-Algorithm': algorithm, Checksum: hex } = fields;
  if (algorithm === undefined && hex === undefined) return undefined;
  const digits = DIGITS[algorithm as ManifestAlgorithm];
  const isHex = typeof hex === 'string' && hex.length === digits && /^[0-9a-f]+$/i.test(hex);
  if (!isHex) throw new Error(`checksum of "${path}"`);
  return { algorithm: algorithm as ManifestAlgorithm, hex: hex.toLowerCase() };
}

function rangeOf(entry: unknown): WalRange {
  const { Timeline: timeline, 'Start-LSN': start, 'End-LSN': end } = asObject(entry);
  const isTimeline = Number.isInteger(timeline) && (timeline as number) > 0;
  if (!isTimeline || typeof start !== 'string' || typeof end !== 'string') {
    throw new Error('a range of WAL has no timeline or ends');
  }
  return { timeline: timeline as number, start: parseLsn(start), end: parseLsn(end) };
}

function asObject(value: unknown): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new Error('an object is missing');
  }
  return value as Record<string, unknown>;
}

function asArray(value: unknown): unknown[] {
  if (!Array.isArray(value)) throw new Error('a list is missing');
  return value;
}
