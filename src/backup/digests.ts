import type { BackupManifest, ManifestFile } from '../base/manifest.js';
import { CorruptObjectError } from '../errors.js';

/** What came of one file. */
export interface FileDigest {
  /** Bytes. */
  size: number;
  /** SHA-256, its bytes in latin1: a third of what its digits would take. */
  sha256: string;
}

/** WAL, which the server sends when it is asked to, has checksums of its own. */
const WAL = /^pg_wal\/[0-9A-F]{24}$/;

/** Differences that are told one by one. */
const TOLD = 5;

/**
 * Compares the files that came with the manifest that came behind them.
 * @param files by their path below the data directory
 * @throws CorruptObjectError if one is missing, is too much, or is another one
 */
export function compareWithManifest(
  { files: expected }: Pick<BackupManifest, 'files'>,
  files: ReadonlyMap<string, FileDigest>,
): void {
  const wrong: string[] = [];
  const seen = new Set<string>();
  for (const entry of expected) {
    seen.add(entry.path);
    const why = difference(entry, files.get(entry.path));
    if (why !== undefined) wrong.push(`${JSON.stringify(entry.path)} ${why}`);
  }
  for (const path of files.keys()) {
    if (!seen.has(path) && !WAL.test(path)) wrong.push(`${JSON.stringify(path)} is not in it`);
  }
  if (wrong.length === 0) return;
  const more = wrong.length > TOLD ? `, and ${wrong.length - TOLD} more` : '';
  throw new CorruptObjectError(
    `what the server sent is not what its manifest says: ${wrong.slice(0, TOLD).join('; ')}${more}`,
    { hint: 'Something between the server and here changes what is sent. Nothing was committed.' },
  );
}

function difference({ size, checksum }: ManifestFile, came: FileDigest | undefined) {
  if (!came) return 'did not come';
  if (came.size !== size) return `has ${came.size} bytes instead of ${size}`;
  if (checksum?.algorithm !== 'SHA256') return 'has no SHA-256 in it';
  const same = Buffer.from(checksum.hex, 'hex').toString('latin1') === came.sha256;
  return same ? undefined : 'has another checksum';
}
