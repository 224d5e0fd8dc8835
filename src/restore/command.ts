import type { RestoreOptions } from './options.js';
import { word } from './settings.js';
import { targetWords } from './target-text.js';

/**
 * The command line that does what the options say, whoever gave them, and in whatever order: two that
 * do the same are the same. What changes nothing of what is restored is not in it.
 */
export function commandOf(options: RestoreOptions): string {
  const { target, timeline, backup, tablespaces = {}, standby, keys = {}, places } = options;
  const given = (name: string, value: string | number | bigint | undefined): string[] =>
    value === undefined ? [] : [`--${name}`, `${value}`];
  const asked = (name: string, value: boolean | undefined): string[] =>
    value === true ? [`--${name}`] : [];
  const escaped = (path: string) => path.replaceAll('=', '\\=');
  const moved = Object.entries(tablespaces).sort(([a], [b]) => (a < b ? -1 : 1));
  const words = [
    ...['walkeep', 'restore', ...targetWords(target ?? { kind: 'latest' })],
    ...[...given('timeline', timeline), ...given('backup', backup)],
    ...moved.flatMap(([old, to]) => ['-T', `${escaped(old)}=${escaped(to)}`]),
    ...given('waldir', options.walDir),
    ...given('config-dir', options.configDir),
    ...given('polar-data', options.polarData),
    ...given('owner', options.owner),
    ...asked('delta', options.delta),
    ...given('action', options.action),
    ...asked('standby', standby !== undefined),
    ...given('primary-conninfo', standby?.conninfo),
    ...asked('keep-archiving', options.keepArchiving),
    ...asked('keep-sync', options.keepSync),
    ...given('restore-command', options.restoreCommand),
    ...asked('no-try-fetch', options.tryFetch === false),
    ...(keys.identityFiles ?? []).flatMap((file) => ['--identity', file]),
    ...given('identity-command', keys.identityCommand),
    ...given('system-id', keys.systemId),
  ];
  return [...words, ...places, options.dataDir].map(word).join(' ');
}
