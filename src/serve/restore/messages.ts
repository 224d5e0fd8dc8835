import type { ServerStore } from '../config/config.js';
import type { ErrorReport } from '../status.js';

/** What somebody wants to restore to, well-formed. */
export interface RestoreQuery {
  /** As `--to` has it; a time is in UTC. */
  to: string;
  before: boolean;
  timeline?: number;
  backup?: string;
  /** Places, by their names: "directory", or a store. */
  from: readonly string[];
  dataDir: string;
  /** Absent: as `walkeep restore` has it. */
  action?: 'promote' | 'shutdown';
}

/** What the process that plans is told. Files with secrets are read there. */
export interface PlanRequest extends Pick<RestoreQuery, 'to' | 'before' | 'timeline' | 'backup'> {
  /** The directory first, where it is one of them. */
  places: readonly PlannedPlace[];
}

export type PlannedPlace = Pick<
  ServerStore,
  'name' | 'place' | 'accessKeyFile' | 'secretKeyFile' | 'identityFile'
>;

/** A commit. Times are ISO 8601 with microseconds, LSNs texts, as all here. */
export interface Commit {
  lsn: string;
  time: string;
  xid?: number;
}

/** Where a recovery ends and what it takes. */
export interface RestorePlanned {
  backup: {
    id: string;
    type: 'full' | 'incremental';
    /** Where it lies. */
    place: string;
    startedAt: string;
    endedAt: string;
    endLsn: string;
    timeline: number;
    /** Of what it holds. */
    bytes: number;
    /** Major and minor version of the server. */
    version: string;
    encrypted: boolean;
    /** What it is made of, the full backup first, itself last. */
    chain: string[];
    /** Where tablespaces were that are outside the data directory. */
    tablespaces: string[];
  };
  wal: { from: string; to: string; segments: number; first: string; last: string; bytes: number };
  /** In the order of replay; `until` where the next one begins. */
  timelines: { timeline: number; until?: string }[];
  /** Options of `walkeep restore` that end recovery there and nowhere else. */
  target: string[];
  /** The timeline along whose way it goes. */
  timeline: number;
  /** Recovery ends with all that is before it. */
  lsn: string;
  /** It is the end of what is archived, which moves on. */
  isLatest: boolean;
  /** The last commit that will be there, and the first that will not. */
  last?: Commit;
  next?: Commit;
  lost: {
    /** Commits behind it on the same way; absent: there is too much WAL to count them. */
    commits?: number;
    last?: Commit;
    /** WAL behind it is missing, or cannot be read. */
    isTorn: boolean;
    segments: number;
    /** What is on other timelines. */
    beside: { timeline: number; from: string; last?: Commit }[];
  };
  warnings: string[];
}

/** A target near one that cannot be reached. */
export interface NearTarget {
  to: string;
  backup?: string;
  timeline: number;
  lsn: string;
  time?: string;
}

export type PlanAnswer =
  | { state: 'planned'; plannedAt: string; plan: RestorePlanned }
  /** No way leads there: of what is in the archive that is certain. */
  | {
      state: 'refused';
      plannedAt: string;
      error: ErrorReport;
      before?: NearTarget;
      after?: NearTarget;
      /** Along the ways to these it could be reached. */
      timelines: number[];
      warnings: string[];
    }
  /** Something is wrong, with what was asked or with a place: nothing is known of the target. */
  | { state: 'failed'; error: ErrorReport };
