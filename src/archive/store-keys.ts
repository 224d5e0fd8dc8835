import { historyFileName } from '../wal/file-name.js';

/**
 * The keys of an archive in a store, docs/stores.md. A segment has one key whatever its form is:
 * only so can `create` keep two writers from storing it differently.
 *
 * ```
 * archive.json                                    created once: format, archive id, mostly the cluster
 * system.json                                     created once, where that names no cluster: the first
 * systems/<sysid>/wal/<TLI8>/<segment24>
 * systems/<sysid>/partial/<TLI8>/<segment24>/<endLSN16>
 * systems/<sysid>/history/<TLI8>.history
 * systems/<sysid>/history/<segment24>.<offset8>.backup
 * systems/<sysid>/conflict/…                      what differs from what stood there
 * ```
 */
export const ARCHIVE_KEY = 'archive.json';
/**
 * An archive that was begun for no cluster in particular is the one's that creates this: of several
 * that come at once each one could find nobody there.
 */
export const FIRST_SYSTEM_KEY = 'system.json';

const hex = (n: number | bigint, digits: number) =>
  n.toString(16).toUpperCase().padStart(digits, '0');

/** All of one cluster. @param systemId pg_control's system_identifier */
export function systemPrefix(systemId: bigint): string {
  return `systems/${systemId}/`;
}

/** @param name its 24 digits, which begin with the timeline's */
export function segmentKey(systemId: bigint, name: string): string {
  return `${systemPrefix(systemId)}wal/${name.slice(0, 8)}/${name}`;
}

/** An unfinished segment: under its final name it would block the whole one. */
export function partialKey(systemId: bigint, name: string, end: bigint): string {
  return `${partialPrefix(systemId, name)}${hex(end, 16)}`;
}

/** How far that goes, of a key or a path that ends with one. */
export function endOfPartial(key: string): bigint | undefined {
  const digits = /\/([0-9A-F]{16})$/.exec(key)?.[1];
  return digits === undefined ? undefined : BigInt(`0x${digits}`);
}

/** All that was shipped of an unfinished segment; the greatest key has the most. */
export function partialPrefix(systemId: bigint, name: string): string {
  return `${systemPrefix(systemId)}partial/${name.slice(0, 8)}/${name}/`;
}

export function historyKey(systemId: bigint, timeline: number): string {
  return `${systemPrefix(systemId)}history/${historyFileName(timeline)}`;
}

/** A backup history file, which belongs to a base backup. @param name as in pg_wal */
export function backupHistoryKey(systemId: bigint, name: string): string {
  return `${systemPrefix(systemId)}history/${name}`;
}

/** Where content is kept that differs from what stands under `key`. @param digest its SHA-256 */
export function asideKey(systemId: bigint, key: string, digest: string): string {
  return conflictKey(systemId, key.split('/').slice(3).join('-'), digest.slice(0, 32));
}

/** Where content is kept that differs from what stands under its key. @param id makes it unique */
export function conflictKey(systemId: bigint, name: string, id: string): string {
  return `${systemPrefix(systemId)}conflict/${name}/${id}`;
}
