import type { Archive } from '../archive/archive.js';
import type { BackupArea } from '../archive/backups/area.js';
import type { Recipients } from '../codec/age/recipients.js';
import type { ReplicationConnection } from '../connection/connection.js';
import type { Lsn } from '../lsn.js';
import type { BackupFacts } from '../server/backup-facts.js';
import type { ServerState } from '../server/server-state.js';
import type { BackupWarning, TakeBackupOptions } from './options.js';
import type { MissingWal } from './wal.js';

/** What a backup is taken from, and where it is put. */
export interface BackupSource {
  physical: Pick<ReplicationConnection, 'baseBackup' | 'serverVersion' | 'uploadManifest'>;
  state: ServerState;
  facts: Pick<
    BackupFacts,
    'walBlockSize' | 'dataChecksums' | 'summarizeWal' | 'inPlaceTablespaces' | 'configuration'
  >;
  /** The time of the server. */
  clock(): Date;
  area: BackupArea;
  archive: Archive;
  /** Brings the WAL of the last segment, which nobody stores before it is full. */
  tail?: (missing: MissingWal & { end: Lsn }, stop: AbortSignal) => Promise<void>;
  recipients: Recipients | undefined;
  /** What has been told so far, and is told meanwhile. */
  warnings: Warnings;
}

/** Warnings of one backup that are told: a server may have one for each of its files. */
const MOST_WARNINGS = 100;

/** What goes into the record, and is told at once. */
export class Warnings {
  readonly #messages: string[] = [];
  readonly #onWarning: TakeBackupOptions['onWarning'];
  #untold = 0;

  constructor(onWarning: TakeBackupOptions['onWarning']) {
    this.#onWarning = onWarning;
  }

  get messages(): string[] {
    const { length } = this.#messages;
    if (this.#untold === 0) return [...this.#messages];
    return [...this.#messages, `${this.#untold} more warnings behind the first ${length}`];
  }

  add(warning: BackupWarning): void {
    if (this.#messages.length >= MOST_WARNINGS) {
      this.#untold += 1;
      return;
    }
    this.#messages.push(warning.message);
    this.#onWarning?.(warning);
    if (this.#messages.length < MOST_WARNINGS) return;
    this.#onWarning?.({ code: 'WK_MORE_WARNINGS', message: 'further warnings are only counted' });
  }
}
