import type { Layout } from '../layout.js';

/** Directories of PostgreSQL's own, in which there is nothing but what a backup has or leaves out. */
export const SERVER_DIRECTORIES: readonly string[] = [
  ...['base', 'global', 'pg_commit_ts', 'pg_dynshmem', 'pg_logical', 'pg_multixact', 'pg_notify'],
  ...['pg_replslot', 'pg_serial', 'pg_snapshots', 'pg_stat', 'pg_stat_tmp', 'pg_subtrans'],
  ...['pg_tblspc', 'pg_twophase', 'pg_wal', 'pg_xact'],
];

/** Files that a server makes in its data directory, or that tell it what to do. */
export const OWN_FILES =
  /^(postmaster\.(pid|opts)|(recovery|standby)\.signal|recovery\.(conf|done)|(backup_label|tablespace_map)(\.old)?|backup_manifest|promote|fallback_promote|logrotate|current_logfiles(\.tmp)?|PG_VERSION|postgresql\.auto\.conf(\.tmp)?)$/;

/** False for what people put there, or a server for them: configuration, logs. */
export function isServersOwn(path: string, { roots }: Layout): boolean {
  const [dataDir] = roots as [string];
  const other = roots.slice(1).find((root) => path.startsWith(`${root}/`));
  if (other !== undefined) return true;
  const [first = '', ...inner] = path.slice(dataDir.length + 1).split('/');
  return inner.length > 0 ? SERVER_DIRECTORIES.includes(first) : OWN_FILES.test(first);
}
