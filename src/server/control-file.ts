import fs from 'node:fs';
import { join } from 'node:path';
import { crc32c } from '../wal/crc32c.js';

/** What the pg_control of a server says. */
export interface ServerControl {
  systemId: bigint;
  /** Timeline of its last checkpoint. */
  timeline: number;
}

/** Bytes up to the end of checkPointCopy.ThisTimeLineID. */
const CONTROL_LENGTH = 52;

/**
 * Reads `global/pg_control` below a data directory, where PostgreSQL runs its restore_command
 * (catalog/pg_control.h, ControlFileData of 14 to 18, little-endian): u64 system_identifier at 0,
 * u32 ThisTimeLineID of the last checkpoint at 48. Undefined if there is none to read.
 */
export function readServerControl(dataDir: string): ServerControl | undefined {
  const bytes = new Uint8Array(CONTROL_LENGTH);
  try {
    const fd = fs.openSync(join(dataDir, 'global', 'pg_control'), 'r');
    try {
      if (fs.readSync(fd, bytes) < CONTROL_LENGTH) return undefined;
    } finally {
      fs.closeSync(fd);
    }
  } catch {
    return undefined;
  }
  const view = new DataView(bytes.buffer);
  const systemId = view.getBigUint64(0, true);
  return systemId === 0n ? undefined : { systemId, timeline: view.getUint32(48, true) };
}

/** Settings of the server that its WAL counts on: a server in recovery must not have less. */
export interface ControlSettings {
  max_connections: number;
  max_worker_processes: number;
  max_wal_senders: number;
  max_prepared_transactions: number;
  max_locks_per_transaction: number;
}

/**
 * Of the content of a pg_control of PostgreSQL 14 to 18, little-endian: five int from 180 on, behind
 * wal_level and wal_log_hints. Undefined for what is none.
 */
export function controlSettings(content: Uint8Array): ControlSettings | undefined {
  if (content.length < 200) return undefined;
  const view = new DataView(content.buffer, content.byteOffset, content.length);
  const version = view.getUint32(8, true);
  if (version < 1300 || version >= 1900) return undefined;
  const at = (offset: number) => view.getInt32(offset, true);
  return {
    max_connections: at(180),
    max_worker_processes: at(184),
    max_wal_senders: at(188),
    max_prepared_transactions: at(192),
    max_locks_per_transaction: at(196),
  };
}

/** How the files of a cluster are made, as its pg_control says. */
export interface ControlGeometry {
  /** Bytes of a page. */
  blockSize: number;
  /** Blocks of a file of a relation. */
  segmentBlocks: number;
  /** Its pages have checksums. */
  checksums: boolean;
}

/** Of the content of a pg_control, as `controlSettings`: u32 at 216, 220 and 252. */
export function controlGeometry(content: Uint8Array): ControlGeometry | undefined {
  if (content.length < 256 || controlSettings(content) === undefined) return undefined;
  const view = new DataView(content.buffer, content.byteOffset, content.length);
  const at = (offset: number) => view.getUint32(offset, true);
  const [blockSize, segmentBlocks, version] = [at(216), at(220), at(252)];
  const isSize = blockSize >= 1024 && blockSize <= 32_768 && Number.isInteger(Math.log2(blockSize));
  return isSize && segmentBlocks > 0
    ? { blockSize, segmentBlocks, checksums: version !== 0 }
    : undefined;
}

/** DBState of a pg_control: whether its server is, or was when it ended, in archive recovery. */
export function controlState(content: Uint8Array): 'recovery' | 'other' {
  if (content.length < 20) return 'other';
  const state = new DataView(content.buffer, content.byteOffset, 20).getUint32(16, true);
  return state === DB_SHUTDOWNED_IN_RECOVERY || state === DB_IN_ARCHIVE_RECOVERY
    ? 'recovery'
    : 'other';
}

const DB_SHUTDOWNED_IN_RECOVERY = 2;
const DB_IN_ARCHIVE_RECOVERY = 5;

/** A pg_control whose checksum is right. */
export interface ControlFile {
  systemId: bigint;
  /** PG_CONTROL_VERSION. */
  version: number;
  /** CATALOG_VERSION_NO, which the directories within tablespaces are called by. */
  catalogVersion: number;
  state: ReturnType<typeof controlState>;
}

/** Of PostgreSQL 18 on there is one more field before the checksum, which is the last one. */
const CRC_AT = (version: number): number => (version < 1800 ? 288 : 292);

/** Of PostgreSQL 14 to 18, little-endian; undefined for what is damaged, or of another one. */
export function parseControlFile(content: Uint8Array): ControlFile | undefined {
  if (content.length < 296) return undefined;
  const view = new DataView(content.buffer, content.byteOffset, content.length);
  const version = view.getUint32(8, true);
  if (version < 1300 || version >= 1900) return undefined;
  const end = CRC_AT(version);
  if (crc32c(content, 0, end) >>> 0 !== view.getUint32(end, true)) return undefined;
  return {
    systemId: view.getBigUint64(0, true),
    ...{ version, catalogVersion: view.getUint32(12, true), state: controlState(content) },
  };
}
