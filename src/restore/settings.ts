import { dirname } from 'node:path';
import type { ArchiveKeys } from '../archive/places/open-archive.js';
import type { LocatedTarget } from '../archive/targets/target.js';
import { UsageError } from '../errors.js';
import { packageFile } from '../package.js';
import type { ControlSettings } from '../server/control-file.js';
import { quoted } from './config-file.js';

/** Settings of an earlier recovery: what is left of them would promote, stop or redirect this one. */
export const RECOVERY_SETTINGS: ReadonlySet<string> = new Set([
  ...['restore_command', 'archive_cleanup_command', 'recovery_end_command'],
  ...['recovery_target', 'recovery_target_lsn', 'recovery_target_name', 'recovery_target_time'],
  ...['recovery_target_xid', 'recovery_target_inclusive', 'recovery_target_timeline'],
  ...['recovery_target_action', 'recovery_min_apply_delay', 'primary_conninfo'],
  ...['primary_slot_name', 'promote_trigger_file'],
]);

export type RecoveryAction = 'pause' | 'promote' | 'shutdown';

export interface RecoverySettings {
  located: LocatedTarget;
  restoreCommand: string;
  action: RecoveryAction;
  /** Goes on as a standby, of the server that `conninfo` names if it is given. */
  standby?: { conninfo?: string | undefined } | undefined;
  keepArchiving: boolean;
  keepSync: boolean;
  control: ControlSettings | undefined;
  /** What the restored files say. */
  configured: ReadonlyMap<string, string>;
  /** As server_version_num. */
  serverVersion: number;
}

/** PostgreSQL's own, where no file says anything. */
const DEFAULTS: Readonly<Record<keyof ControlSettings, number>> = {
  max_connections: 100,
  max_worker_processes: 8,
  max_wal_senders: 10,
  max_prepared_transactions: 0,
  max_locks_per_transaction: 64,
};

/** Each of which PostgreSQL takes for the one target. */
const TARGETS = ['', '_lsn', '_name', '_time', '_xid'].map((end) => `recovery_target${end}`);

/** The lines of the block, for PostgreSQL 14 to 18. */
export function settingLines(settings: RecoverySettings): string[] {
  const { located, standby, action, configured, control } = settings;
  const { setting, timeline } = located;
  const lines: [string, string][] = [['restore_command', settings.restoreCommand]];
  // Those of a file that is read before this one would be a second target. Empty ones must stand
  // first: PostgreSQL takes each for an end of the target before it.
  for (const name of TARGETS) if (name !== setting?.name) lines.push([name, '']);
  if (setting) lines.push([setting.name, setting.value]);
  if (setting && 'inclusive' in setting) {
    lines.push(['recovery_target_inclusive', String(setting.inclusive)]);
  }
  lines.push(['recovery_target_timeline', standby && !setting ? 'latest' : String(timeline)]);
  if (setting) lines.push(['recovery_target_action', action]);
  // It would ask for WAL behind the target, and take a failure of restore_command for its own end.
  if (setting && located.gap && settings.serverVersion >= 150000) {
    lines.push(['recovery_prefetch', 'off']);
  }
  lines.push(['recovery_min_apply_delay', '0']);
  lines.push(['recovery_end_command', ''], ['archive_cleanup_command', '']);
  lines.push(['primary_conninfo', standby?.conninfo ?? ''], ['primary_slot_name', '']);
  if (settings.serverVersion < 160000) lines.push(['promote_trigger_file', '']);
  // A second archiver of the same timeline would store other WAL under the names of the first one's.
  if (!settings.keepArchiving) lines.push(['archive_mode', 'off']);
  // Commits would wait for a standby that follows the lost server.
  if (!settings.keepSync) lines.push(['synchronous_standby_names', '']);
  for (const [name, least] of Object.entries(control ?? {}) as [keyof ControlSettings, number][]) {
    const has = Number(configured.get(name) ?? DEFAULTS[name]);
    if (!(has >= least)) lines.push([name, String(least)]);
  }
  return lines.map(([name, value]) => `${name} = ${quoted(value)}`);
}

/** Segments that are had ready while PostgreSQL replays one. */
const PREFETCH = 4;

export interface CommandOptions extends ArchiveKeys {
  /** Absolute, or URLs. */
  places: readonly string[];
  /** Serve a partial segment behind which WAL is missing, too. */
  allowTorn?: boolean | undefined;
  /** The package's script, and the directory that node is in; those of this process. */
  program?: string | undefined;
  nodeDirectory?: string | undefined;
}

/** Beside the modules. */
const SCRIPT = ['..', 'bin', 'walkeep'].join('/');

/** What runs `walkeep` with an empty environment, as the service manager of a server gives it. */
export function programWords({ program, nodeDirectory }: Partial<CommandOptions> = {}): string {
  const script = program ?? packageFile(SCRIPT);
  if (script === undefined) {
    throw new UsageError('the server needs a walkeep for its restore_command: a bundle has none', {
      hint: 'Leave the package "walkeep" out of the bundle, so that its command is beside it.',
    });
  }
  const path = [nodeDirectory ?? dirname(process.execPath), '/usr/bin', '/bin'].join(':');
  // The script and not node itself: without it a node that does not start would look like the end
  // of the archive.
  return `PATH=${word(path)} ${word(script)}`;
}

/** The shell command that PostgreSQL runs for each file; % has a meaning in it. */
export function restoreCommandOf(options: CommandOptions): string {
  const { places, identityFiles = [], identityCommand, allowTorn = false } = options;
  const keys = [
    ...identityFiles.flatMap((file) => ['--identity', file]),
    ...(identityCommand === undefined ? [] : ['--identity-command', identityCommand]),
  ];
  const torn = allowTorn ? ['--allow-torn'] : [];
  const words = ['fetch', '--prefetch', String(PREFETCH), ...torn, ...keys, ...places].map(word);
  const command = [programWords(options), ...words].join(' ').replaceAll('%', '%%');
  return `${command} %f %p`;
}

/** As a shell takes it. */
export function word(text: string): string {
  return /^[\w@+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
