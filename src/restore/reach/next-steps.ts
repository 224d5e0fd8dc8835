import type { RecoveryAction } from '../settings.js';
import { word } from '../settings.js';

/** What is known of a restored server before its first start. */
export interface Restored {
  dataDir: string;
  /** Where its settings are, if that is another directory. */
  configDir?: string | undefined;
  /** Absent: it belongs to whoever restored. */
  uid?: number | undefined;
  /** Where recovery ends. */
  lsn: string;
  /** That is the end of the archive. */
  isLatest: boolean;
  action: RecoveryAction;
  standby: boolean;
}

/** What to do with it, and what happens then. */
export function recoverySteps(restored: Restored): string[] {
  const { dataDir, configDir = dataDir, uid, lsn, isLatest, action, standby } = restored;
  const directory = word(configDir);
  const user = uid === undefined ? '' : ` (as uid ${uid})`;
  const steps = [`start it${user}: pg_ctl -D ${directory} -l ${directory}/restore.log start`];
  if (standby) {
    steps.push('it recovers to the end of the archive and goes on as a standby');
    steps.push('see how far it is: SELECT pg_last_wal_replay_lsn()');
    return steps;
  }
  if (isLatest) steps.push(`it recovers to ${lsn}, is promoted, and takes writes`);
  else if (action === 'pause') {
    steps.push(
      'it recovers to the target, pauses there and answers reads: that is not broken, look at the data',
    );
    steps.push(
      'a SELECT that waits there waits for a lock of a transaction that the target cuts off, such ' +
        'as a DROP TABLE: pg_locks shows it, and the end of recovery lets it go',
    );
    steps.push('if it is right, end recovery: SELECT pg_wal_replay_resume()');
    steps.push('if not, stop it, and restore to another target; do not remove recovery.signal');
  } else if (action === 'promote') {
    steps.push('it recovers to the target, is promoted, and takes writes');
  } else steps.push('it recovers to the target and shuts down');
  steps.push('see whether it is done: SELECT pg_is_in_recovery()');
  steps.push(
    `then take a new base backup, and remove the settings of the restore: walkeep restore --finish ${directory}`,
  );
  return steps;
}
