import type { ReplicationConnection } from '../connection/connection.js';
import { ServerError } from '../errors.js';
import {
  isListed,
  parseSyncStandbyNames,
  type SyncStandbyNames,
} from '../protocol/sync-standby-names.js';
import type { ReceiverWarning } from './warning.js';

/** What the server's settings mean for commits that wait for this receiver. */
export interface SyncStandbyState {
  warnings: ReceiverWarning[];
  /** The server's default for synchronous_commit; undefined if it could not be read. */
  synchronousCommit: string | undefined;
  /** The setting, if it lists this receiver. */
  listed: SyncStandbyNames | undefined;
}

export interface SyncStandbyOptions {
  applicationName: string;
  synchronous: boolean;
  apply: 'none' | 'flush';
}

/**
 * Reads the settings that decide whether commits wait for this receiver, and says what would make
 * them hang. A replication connection answers SHOW but no SQL: who else is connected is asked
 * elsewhere (sync-peers), what single sessions set for themselves is not known.
 */
export async function readSyncStandby(
  connection: ReplicationConnection,
  options: SyncStandbyOptions,
): Promise<SyncStandbyState> {
  const show = async (name: string) => {
    try {
      return await connection.show(name);
    } catch (e) {
      if (e instanceof ServerError && !connection.closed) return undefined;
      throw e;
    }
  };
  const names = await show('synchronous_standby_names');
  const synchronousCommit = await show('synchronous_commit');
  const parsed = names === undefined ? undefined : parseSyncStandbyNames(names);
  const listed = parsed && isListed(parsed, options.applicationName) ? parsed : undefined;
  return { warnings: syncWarnings(names, synchronousCommit, options), synchronousCommit, listed };
}

/** The warnings alone. Pure. */
export function syncWarnings(
  setting: string | undefined,
  synchronousCommit: string | undefined,
  { applicationName, synchronous, apply }: SyncStandbyOptions,
): ReceiverWarning[] {
  const warnings: ReceiverWarning[] = [];
  const warn = (code: string, message: string, hint: string) =>
    warnings.push({ code, message, hint });
  const name = JSON.stringify(applicationName);
  if (setting === undefined) {
    warn(
      'WK_SYNC_UNKNOWN',
      'synchronous_standby_names could not be read: whether commits wait for this receiver is unknown',
      'Look at it on the server.',
    );
    return warnings;
  }
  const parsed = parseSyncStandbyNames(setting);
  if (setting.trim() !== '' && !parsed) {
    warn(
      'WK_SYNC_UNKNOWN',
      `synchronous_standby_names = '${setting}' is not understood: whether commits wait for this receiver is unknown`,
      'Look at it on the server.',
    );
  }
  if (!parsed || !isListed(parsed, applicationName)) return warnings;
  const others = parsed.names.filter((n) => n.toLowerCase() !== applicationName.toLowerCase());
  if (!synchronous) {
    warn(
      'WK_SYNC_HANG',
      `${name} is listed in synchronous_standby_names, but --synchronous is off: commits that wait for this receiver will hang`,
      'Start with --synchronous, or give it another application_name.',
    );
  }
  if (synchronousCommit === 'remote_apply' && apply === 'none') {
    warn(
      'WK_SYNC_APPLY',
      `synchronous_commit is remote_apply and ${name} is listed in synchronous_standby_names, but nothing is applied here: commits that wait for this receiver will hang`,
      'Use synchronous_commit = on, or --apply=flush where no listed standby serves reads.',
    );
  }
  const any = parsed.names.includes('*');
  if (!any && (others.length === 0 || parsed.count >= parsed.names.length)) {
    warn(
      'WK_SYNC_ONLY',
      `synchronous_standby_names = '${setting}' leaves no other standby to wait for: every commit waits while this receiver is away`,
      "List a second one, for example 'ANY 1 (…)'.",
    );
  }
  if (others.length > 0 && apply === 'flush') {
    warn(
      'WK_SYNC_APPLY_OTHERS',
      `--apply=flush reports WAL as applied that is only stored here, and other standbys are listed in synchronous_standby_names: with remote_apply a read there may miss a confirmed commit`,
      'Use --apply=flush only where no other listed standby serves reads.',
    );
  }
  return warnings;
}
