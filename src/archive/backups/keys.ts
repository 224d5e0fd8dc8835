/**
 * The keys of base backups and of who is at work on them, docs/stores.md. In a store they stand below
 * `systems/<sysid>/`; in a directory archive, which is of one cluster, below its own root.
 *
 * ```
 * backups/<id>/backup.json        created last: what has none is no backup
 * backups/<id>/claim.json         created first
 * backups/<id>/base.tar.zst.0000  and all else that backup.json names
 * keep/<id>                       not to be expired
 * lease/<id>/<writer>/<n>         a running backup or restore, renewed by the next n
 * intent/<id>/<writer>/<n>        a running expire
 * index/<TLI8>/<segment24>        of the 32 segments from that one on
 * index/<TLI8>/<segment24>.32     the 32 of these from that one on, joined
 * ```
 */
export const RECORD = 'backup.json';
export const CLAIM = 'claim.json';

export const BACKUPS = 'backups/';
export const KEEP = 'keep/';
export const LEASE = 'lease/';
export const INTENT = 'intent/';
export const INDEX = 'index/';
export const JOINED_SUFFIX = '.32';

/** @param name of an object of the backup; absent for the prefix of them all */
export function backupKey(prefix: string, id: string, name = ''): string {
  return `${prefix}${BACKUPS}${id}/${name}`;
}

export function keepKey(prefix: string, id: string): string {
  return `${prefix}${KEEP}${id}`;
}

/** @param segment 24 digits of the first of the 32 */
export function indexKey(prefix: string, segment: string): string {
  return `${prefix}${INDEX}${segment.slice(0, 8)}/${segment}`;
}

/** @param segment 24 digits of the first of the 1024 */
export function joinedKey(prefix: string, segment: string): string {
  return `${indexKey(prefix, segment)}${JOINED_SUFFIX}`;
}
