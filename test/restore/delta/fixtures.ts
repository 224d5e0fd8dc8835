import { createHash } from 'node:crypto';
import { fileHash } from '../../../src/archive/backups/file-hash.js';
import type { ManifestAlgorithm } from '../../../src/base/manifest.js';
import { crc32c } from '../../../src/wal/crc32c.js';
import type { Made, StoreBackup } from '../../support/stored-backup.js';
import { tarOf } from '../../support/stored-backup.js';
import { BASE, bytes, IN_PLACE, SPACE } from '../restorable.js';

export const CATALOG_VERSION = 202506291;

/** A pg_control of PostgreSQL 18 with a right checksum. */
export function controlFile(
  systemId: bigint,
  { state = 6, time = 0, version = 1800 }: { state?: number; time?: number; version?: number } = {},
): Buffer {
  const bytes = Buffer.alloc(8192);
  bytes.writeBigUInt64LE(systemId, 0);
  bytes.writeUInt32LE(version, 8);
  bytes.writeUInt32LE(CATALOG_VERSION, 12);
  bytes.writeUInt32LE(state, 16);
  bytes.writeUInt32LE(time, 24);
  const end = version < 1800 ? 288 : 292;
  bytes.writeUInt32LE(crc32c(bytes, 0, end), end);
  return bytes;
}

/** As a server writes it. */
export function manifestOf(
  tars: readonly { prefix: string; members: readonly Made[] }[],
  algorithm: ManifestAlgorithm = 'SHA256',
): Buffer {
  const files = tars.flatMap(({ prefix, members }) =>
    members
      .filter(({ type = 'file' }) => type === 'file')
      .map(({ name, content = '' }) => {
        const bytes = Buffer.from(content as string);
        const hash = fileHash(algorithm);
        hash.update(bytes);
        return `{ "Path": "${prefix}${name}", "Size": ${bytes.length}, "Last-Modified": "2026-11-27 20:15:00 GMT", "Checksum-Algorithm": "${algorithm}", "Checksum": "${hash.digest()}" }`;
      }),
  );
  const text = `{ "PostgreSQL-Backup-Manifest-Version": 1,\n"Files": [\n${files.join(',\n')}\n],\n"WAL-Ranges": [\n{ "Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/2000100" }\n],\n`;
  const sum = createHash('sha256').update(text).digest('hex');
  return Buffer.from(`${text}"Manifest-Checksum": "${sum}"}\n`);
}

/** Files of which parts are compared by themselves. */
export const PARTS = ['base/5/parts', 'base/5/grown', 'base/5/cut'];

/** The backup of `restorable.ts` with what a delta takes: a manifest, a pg_control of a cluster. */
export function deltaBackup(
  systemId: bigint,
  change: (base: Made[]) => Made[] = (base) => base,
  algorithm: ManifestAlgorithm = 'SHA256',
): {
  base: Made[];
  options: Pick<StoreBackup, 'tars' | 'others'>;
} {
  const made = BASE.map((one) =>
    one.name === 'global/pg_control' ? { ...one, content: controlFile(systemId) } : one,
  );
  // So large that most of its frames have nothing else.
  made.splice(-1, 0, ...PARTS.map((name) => ({ name, content: bytes(30_000) })));
  const base = change(made);
  return {
    base,
    options: {
      tars: [
        { name: '16388.tar', oid: 16388, bytes: tarOf(SPACE) },
        { name: '16389.tar', oid: 16389, bytes: tarOf(IN_PLACE) },
        { name: 'base.tar', bytes: tarOf(base) },
      ],
      others: {
        backup_manifest: manifestOf(
          [
            { prefix: 'pg_tblspc/16388/', members: SPACE },
            { prefix: 'pg_tblspc/16389/', members: IN_PLACE },
            { prefix: '', members: base },
          ],
          algorithm,
        ),
      },
    },
  };
}
