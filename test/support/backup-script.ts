import { createHash } from 'node:crypto';
import { type TarMember, tarHeader } from '../../src/base/tar.js';
import { formatLsn } from '../../src/lsn.js';
import * as backend from './backend-messages.js';
import { checksumOf } from './checksum.js';

/** A tar that a scripted server sends. Without an OID it is that of a data directory. */
export interface ScriptedTar {
  oid?: number;
  location?: string;
  /** PolarDB's second data directory. */
  shared?: boolean;
  /** By name; a name with a slash at its end is a directory. */
  files: Readonly<Record<string, string | Uint8Array>>;
  /** Two blocks of zeros at the end. Default: as the version does it. */
  ending?: boolean;
}

export interface ScriptedBackup {
  major: number;
  /** In the order of a server: the data directory behind all tablespaces. */
  tars: readonly ScriptedTar[];
  /** A fourth column in the list of tablespaces. */
  polar?: boolean;
  start?: bigint;
  end?: bigint;
  /** Default: a manifest of all files. */
  manifest?: Buffer;
  /** Bytes of one CopyData. */
  chunk?: number;
}

const MTIME = 1764291600;

/** The answer to BASE_BACKUP, up to ReadyForQuery. */
export function scriptedBackup(backup: ScriptedBackup): Buffer {
  const { major, tars, polar = false, start = 0x2000028n, end = 0x2000100n } = backup;
  const { manifest = scriptedManifest(backup), chunk = 32768 } = backup;
  const position = (lsn: bigint) => backend.rowsOf(['recptr', 'tli'], [[formatLsn(lsn), '1']]);
  const rows = tars.map(({ oid, location, shared }) => [
    oid === undefined ? null : String(oid),
    location ?? null,
    '1',
    ...(polar ? [shared ? '1' : null] : []),
  ]);
  const columns = ['spcoid', 'spclocation', 'size', ...(polar ? ['shared_storage'] : [])];
  const data = (bytes: Buffer) => {
    const pieces: Buffer[] = [];
    for (let at = 0; at < bytes.length; at += chunk) pieces.push(bytes.subarray(at, at + chunk));
    return pieces.map(major < 15 ? backend.copyData : backend.archiveData);
  };
  const parts: Buffer[] = [];
  if (major < 15) {
    for (const bytes of [...tars.map((tar) => tarBytes(tar, false)), manifest]) {
      parts.push(backend.copyOut(), ...data(bytes), backend.copyDone());
    }
  } else {
    parts.push(backend.copyOut());
    for (const tar of tars) {
      const { oid, location, shared } = tar;
      const name = oid === undefined ? (shared ? 'data.tar' : 'base.tar') : `${oid}.tar`;
      parts.push(backend.newArchive(name, location), ...data(tarBytes(tar, true)));
    }
    parts.push(backend.newManifest(), ...data(manifest), backend.copyDone());
  }
  return Buffer.concat([
    ...[position(start), backend.rowsOf(columns, rows)],
    ...parts,
    ...[position(end), backend.commandComplete('BASE_BACKUP'), backend.readyForQuery()],
  ]);
}

function tarBytes({ files, ending }: ScriptedTar, usual: boolean): Buffer {
  const blocks: Buffer[] = [];
  for (const [path, content] of Object.entries(files)) {
    const bytes = Buffer.from(content);
    const type: TarMember['type'] = path.endsWith('/') ? 'directory' : 'file';
    const [name, size] = [path.replace(/\/$/, ''), bytes.length];
    blocks.push(tarHeader({ name, type, size, mode: 0o600, mtime: MTIME, link: '' }), bytes);
    blocks.push(Buffer.alloc(-size & 511));
  }
  if (ending ?? usual) blocks.push(Buffer.alloc(1024));
  return Buffer.concat(blocks);
}

/** As the server writes it. PolarDB has the paths of both its data directories without a prefix. */
export function scriptedManifest({ major, tars, start, end }: ScriptedBackup): Buffer {
  const files = tars.flatMap(({ oid, files }) =>
    Object.entries(files)
      .filter(([path]) => !path.endsWith('/'))
      .map(([path, content]) => {
        const name = oid === undefined ? path : `pg_tblspc/${oid}/${path}`;
        const sum = checksumOf('CRC32C', content);
        return `{ "Path": ${JSON.stringify(name)}, "Size": ${Buffer.from(content).length}, "Last-Modified": "2025-11-28 01:00:00 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "${sum}" }`;
      }),
  );
  const range = `{ "Timeline": 1, "Start-LSN": "${formatLsn(start ?? 0x2000028n)}", "End-LSN": "${formatLsn(end ?? 0x2000100n)}" }`;
  const version = major >= 17 ? '2,\n"System-Identifier": 7000000000000000001' : '1';
  const text = `{ "PostgreSQL-Backup-Manifest-Version": ${version},\n"Files": [\n${files.join(',\n')}\n],\n"WAL-Ranges": [\n${range}\n],\n`;
  return Buffer.from(
    `${text}"Manifest-Checksum": "${createHash('sha256').update(text).digest('hex')}"}\n`,
  );
}
