import type { ArchiveOptions } from '../archive/places/open-archive.js';
import type { RecoveryTarget } from '../archive/targets/target.js';
import type { Lsn } from '../lsn.js';
import type { RestorePlan, RestoreProgress } from '../restore/options.js';

export interface RehearseOptions {
  /** Directories and URLs: WAL comes from all of them, the backup from the first that has it. */
  places: readonly string[];
  /** Default: the end of the archive. */
  target?: RecoveryTarget | undefined;
  /** Along the way to this timeline; default: the newest. */
  timeline?: number | undefined;
  /** This backup, and not the newest that fits. */
  backup?: string | undefined;
  keys?: ArchiveOptions | undefined;
  /** Below it a directory is made that holds everything; default: the system's for temporary files. */
  scratch?: string | undefined;
  /** Where the server's programs are; default: looked for. */
  pgBin?: string | undefined;
  /** As root: the user that the server runs as; default `postgres`, or `nobody` where there is none. */
  runAs?: string | undefined;
  /** The role that connects; default: `postgres`, or the one that is named as who runs this. */
  user?: string | undefined;
  /** The database of `sql`; default `postgres`. */
  database?: string | undefined;
  /** Ends recovery: the server takes writes. */
  promote?: boolean | undefined;
  /** Leaves shared_preload_libraries as they are, with the workers that they start. */
  keepPreload?: boolean | undefined;
  /** Settings of the server that win over all others. */
  settings?: Readonly<Record<string, string>> | undefined;
  /** Each has to succeed, and one that gives a single boolean has to say true. */
  sql?: readonly string[] | undefined;
  /**
   * Of each database so many of the largest tables are read, besides the catalogs; of each at most
   * 256 MiB. `all`: every table, as a whole. Default 10, with `sql` 0, which leaves the catalogs out.
   */
  tables?: number | 'all' | undefined;
  /** Milliseconds for all of it; default a day. */
  timeout?: number | undefined;
  /** Threads that unpack. */
  jobs?: number | undefined;
  signal?: AbortSignal | undefined;
  onWarning?: ((message: string) => void) | undefined;
  onProgress?: ((progress: RehearseProgress) => void) | undefined;
}

export type RehearseStep = 'restore' | 'start' | 'recovery' | 'queries';

export type RehearseProgress =
  | { kind: 'plan'; plan: RestorePlan; server: RehearsedServer }
  | { kind: 'begin'; step: RehearseStep }
  | { kind: 'restore'; progress: RestoreProgress }
  | { kind: 'recovery'; segments: number; of: number }
  | { kind: 'query'; database: string; what: string }
  | { kind: 'end'; step: RehearseStep; duration: number }
  | { kind: 'removing' };

/** What the rehearsal ran. */
export interface RehearsedServer {
  bin: string;
  /** As the program says it: `17.10`. */
  version: string;
}

/** A page that cannot be read, or a table and its index that contradict each other. */
export interface RehearseFinding {
  database: string;
  relation: string | undefined;
  message: string;
  sqlstate?: string | undefined;
}

export interface RehearseProblem {
  code: string;
  message: string;
  detail?: string | undefined;
  hint?: string | undefined;
}

export interface RehearsedQuery {
  sql: string;
  rows: number;
  /** Values of the first row. */
  first: (string | null)[];
  /** Milliseconds. */
  duration: number;
  /** What was wrong with it. */
  problem?: string | undefined;
}

export interface RehearsedReading {
  /** Whether the cluster has page checksums: without them damage that can be read is not seen. */
  checksums: boolean;
  tables: number;
  /** Bytes of tables, without those of indexes. */
  bytes: number;
  /** Tables of which a part was read. */
  sampled: number;
  /** Tables whose rows were counted by an index, too. */
  compared: number;
}

/** What came of a rehearsal. */
export interface RehearseReport {
  /** `unknown`: it could not be tried, which says nothing about the archive. */
  outcome: 'good' | 'bad' | 'unknown';
  problem: RehearseProblem | undefined;
  places: readonly string[];
  /** When it began. */
  began: Date;
  plan: RestorePlan | undefined;
  server: RehearsedServer | undefined;
  /** Milliseconds of each step that has ended. */
  steps: Partial<Record<RehearseStep, number>>;
  /** Milliseconds of restore, start and recovery: then the data is there again. */
  recovery: number | undefined;
  /** Milliseconds of all steps. */
  total: number;
  files: number;
  /** Where the server stood. */
  reached: { lsn: Lsn; promoted: boolean } | undefined;
  /** Of the last transaction that is there. */
  lastCommit: Date | undefined;
  databases: { name: string; relations: number; size: number }[];
  reading: RehearsedReading | undefined;
  findings: RehearseFinding[];
  queries: RehearsedQuery[];
  warnings: string[];
  /** Of the server's log, where it failed. */
  log: string[];
  /** Directories of rehearsals that were killed, which this one has removed. */
  swept: string[];
}
