import type { ArchiveOptions } from '../archive/places/open-archive.js';
import type { LocatedTarget, RecoveryTarget } from '../archive/targets/target.js';
import type { BackupRecord } from '../base/backup-record.js';
import type { ReplayedWal } from './choose.js';
import type { AdoptedFile } from './config/adopted.js';
import type { Owner } from './file-system.js';
import type { RecoveryAction } from './settings.js';
import type { Space } from './space.js';

export interface RestoreOptions {
  /** Directories and URLs: WAL comes from all of them, the backup from the first that has it. */
  places: readonly string[];
  /** Empty, or not there; with `delta` that of a server that was lost. */
  dataDir: string;
  /**
   * What is in `dataDir` stays where it is as the backup has it: the rest is written, or removed. Of
   * a directory that is empty, or not there, nothing else is done than without it.
   */
  delta?: boolean | undefined;
  /** Default: the end of the archive. */
  target?: RecoveryTarget | undefined;
  /** Along the way to this timeline; default: the newest. */
  timeline?: number | undefined;
  /** This backup, and not the newest that fits. */
  backup?: string | undefined;
  /** Where tablespaces go, by where they were; others go where they were. */
  tablespaces?: Readonly<Record<string, string>> | undefined;
  /** Below which those go that `tablespaces` does not name, each in a directory called by its OID. */
  tablespaceDir?: string | undefined;
  /** Where pg_wal goes, which becomes a link to it. */
  walDir?: string | undefined;
  /** Of PolarDB: where the second directory goes. */
  polarData?: string | undefined;
  /** Where configuration goes that was outside the data directory; default: into that. */
  configDir?: string | undefined;
  /** Goes on as a standby, of the server of `conninfo` if it is given. */
  standby?: { conninfo?: string | undefined } | undefined;
  /** At the target; default `pause`. Without a target recovery ends by promotion. */
  action?: RecoveryAction | undefined;
  /** The restored server archives as the lost one did; otherwise archive_mode is off. */
  keepArchiving?: boolean | undefined;
  /** Commits wait for the standbys that the lost server waited for. */
  keepSync?: boolean | undefined;
  /** `user[:group]`, of whom root restores for; default: the owner of the directory, or around it. */
  owner?: string | undefined;
  /** Threads; default 2. */
  jobs?: number | undefined;
  /** In the place of the one that walkeep makes. */
  restoreCommand?: string | undefined;
  /** Default true: that one is tried first, as the server's user. */
  tryFetch?: boolean | undefined;
  /** What the server will have in its environment; default nothing, as a service. */
  environment?: NodeJS.ProcessEnv | undefined;
  keys?: ArchiveOptions | undefined;
  signal?: AbortSignal | undefined;
  /** Told before anything is written. */
  onPlan?: ((plan: RestorePlan) => void) | undefined;
  /** Something that a person should know, and that does not end it. */
  onWarning?: ((message: string) => void) | undefined;
  onProgress?: ((progress: RestoreProgress) => void) | undefined;
  /** Of a delta: told before a file is removed or written. */
  onCompared?: ((compared: DeltaCompared) => void) | undefined;
}

export interface RestoreProgress {
  phase: 'compare' | 'files' | 'sync';
  /** Bytes of tar; of `sync` files; of `compare` bytes of files. */
  done: number;
  total: number;
}

/** What a restore does. */
export interface RestorePlan {
  backup: BackupRecord;
  /** Where the backup lies. */
  place: string;
  target: RecoveryTarget;
  located: LocatedTarget;
  /** That is replayed. */
  wal: ReplayedWal;
  dataDir: string;
  tablespaces: { oid: number; from: string; to: string; inPlace: boolean }[];
  walDir: string | undefined;
  polarData: string | undefined;
  configDir: string;
  /** Undefined: files belong to this process's user. */
  owner: Owner | undefined;
  space: Space[];
  /** The lines of the block in postgresql.auto.conf. */
  settings: string[];
  signalFile: 'recovery.signal' | 'standby.signal';
  action: RecoveryAction;
  adopted: AdoptedFile[];
  /** `half`: a restore that was cut short is begun again; `complete`: there is nothing left to do. */
  state: 'fresh' | 'half' | 'complete';
  /** Absent: into an empty directory. */
  delta?: DeltaPlan | undefined;
  warnings: string[];
  /** The command line that does it. */
  command: string;
}

/** How what is there becomes what the backup has. */
export interface DeltaPlan {
  /** One that was cut short there goes on. */
  resumed: boolean;
  /** What cannot be found out of servers that may be at work in the directory. */
  unseen: string[];
  /** Where the WAL of the lost server is put; undefined: there is none. */
  oldWal: string | undefined;
  /** Files of that which the archive does not have whole. */
  unarchived: string[];
  /** Only of `planRestore`: the files are compared. */
  compared?: DeltaCompared | undefined;
}

export interface Amount {
  files: number;
  bytes: number;
}

/** What a delta does with the files of a directory. */
export interface DeltaCompared {
  /** That stay. */
  same: Amount;
  /** That are written anew. */
  changed: Amount;
  /** That go, since the backup does not have them. */
  removed: Amount;
  /** Bytes of the archive that are read for `changed`. */
  read: number;
  /** Files that are nobody's but people's, each kept under the other name. */
  kept: { path: string; as: string }[];
}

export interface RestoreResult {
  plan: RestorePlan;
  /** Files that were written. */
  files: number;
  /** Bytes of tar. */
  bytes: number;
  /** Milliseconds. */
  duration: number;
  /** Of a delta. */
  compared?: DeltaCompared | undefined;
}
