import { createHash } from 'node:crypto';
import { formatLsn } from '../lsn.js';
import type { ManifestFile, WalRange } from './manifest.js';

/**
 * A `backup_manifest` of version 2, as a server of PostgreSQL 17 or newer writes it: for a backup that
 * no server made. `pg_verifybackup` takes it, and a server an incremental backup based on it.
 */
export function manifestBytes(
  systemId: bigint,
  files: readonly ManifestFile[],
  walRanges: readonly WalRange[],
): Buffer {
  const ranges = walRanges.map(
    ({ timeline, start, end }) =>
      `{ "Timeline": ${timeline}, "Start-LSN": "${formatLsn(start)}", "End-LSN": "${formatLsn(end)}" }`,
  );
  const text = [
    '{ "PostgreSQL-Backup-Manifest-Version": 2,',
    `"System-Identifier": ${systemId},`,
    `"Files": [\n${files.map(fileLine).join(',\n')}`,
    '],',
    `"WAL-Ranges": [\n${ranges.join(',\n')}`,
    '],\n',
  ].join('\n');
  const sum = createHash('sha256').update(text).digest('hex');
  return Buffer.from(`${text}"Manifest-Checksum": "${sum}"}\n`);
}

function fileLine({ path, size, lastModified, checksum }: ManifestFile): string {
  const bytes = Buffer.from(path, 'latin1');
  const name = bytes.toString('utf8');
  const isText = Buffer.from(name, 'utf8').equals(bytes);
  const fields = [
    isText ? `"Path": ${JSON.stringify(name)}` : `"Encoded-Path": "${bytes.toString('hex')}"`,
    `"Size": ${size}`,
    `"Last-Modified": ${JSON.stringify(lastModified)}`,
  ];
  if (checksum) {
    fields.push(`"Checksum-Algorithm": "${checksum.algorithm}"`, `"Checksum": "${checksum.hex}"`);
  }
  return `{ ${fields.join(', ')} }`;
}
