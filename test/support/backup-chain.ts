import type { TakeBackupOptions, TakenBackup } from '../../src/backup/options.js';
import { type Major, PostgresServer, type ServerOptions } from './postgres.js';
import { backupOf } from './taken-backup.js';

/** A server that can tell what changed since a backup: 17 and newer. */
export function summarizingServer(
  major: Major,
  { settings, ...options }: Partial<ServerOptions> = {},
): Promise<PostgresServer> {
  return PostgresServer.create({
    ...{ major, ...options },
    settings: { summarize_wal: 'on', ...settings },
  });
}

/**
 * A full backup, and then after each change an incremental one, based on the last. With
 * `wal: 'include'` nobody needs to receive the server's WAL.
 */
export async function takeChain(
  server: PostgresServer,
  place: string,
  changes: readonly (() => Promise<unknown>)[],
  options: Partial<TakeBackupOptions> = {},
): Promise<[TakenBackup, ...TakenBackup[]]> {
  const chain: [TakenBackup, ...TakenBackup[]] = [await backupOf(server, place, options)];
  for (const change of changes) {
    await change();
    const incremental = { incremental: 'last', fallback: false, ...options };
    chain.push(await backupOf(server, place, incremental));
  }
  return chain;
}
