import type { Lsn } from '../../lsn.js';
import type { TimestampTz } from '../../wal/records/timestamp.js';

/** Where recovery is to end, as `recovery_target_…` of PostgreSQL. */
export type RecoveryTarget =
  | { kind: 'latest' }
  /** As soon as the backup is consistent. */
  | { kind: 'immediate' }
  | { kind: 'time'; time: TimestampTz; inclusive: boolean }
  | { kind: 'lsn'; lsn: Lsn; inclusive: boolean }
  | { kind: 'xid'; xid: number; inclusive: boolean }
  | { kind: 'name'; name: string };

/** A target that was found in the WAL of a way from a backup to a timeline. */
export interface LocatedTarget {
  /** That of the way, for `recovery_target_timeline`; `lsn` may lie on one of its ancestors. */
  timeline: number;
  /** WAL up to here is replayed at least; recovery stops before or at the record that begins or ends here. */
  lsn: Lsn;
  /** Commit (or named point) it ends with, and the first commit that it does not have any more. */
  last?: { lsn: Lsn; time: TimestampTz; xid?: number };
  next?: { lsn: Lsn; time: TimestampTz; xid?: number };
  /**
   * How PostgreSQL is to be told: an LSN wherever one is known, since two commits may share a time
   * and a server that finds no later commit than the time would not start.
   */
  setting:
    | { name: 'recovery_target_lsn'; value: string; inclusive: boolean }
    | { name: 'recovery_target_xid'; value: string; inclusive: boolean }
    | { name: 'recovery_target_name'; value: string }
    | { name: 'recovery_target_time'; value: string; inclusive: boolean }
    | { name: 'recovery_target'; value: 'immediate' }
    | undefined;
  /** WAL is missing, or damaged, so soon behind it that a server which reads ahead would ask for it. */
  gap?: {
    /** What is here before that is a partial segment, of which no more is known than its content. */
    isPartial: boolean;
  };
  /** What is to be told besides: that the index is damaged, what was taken for granted. */
  notes: string[];
  /** Segments that were read to find it. */
  segmentsRead: number;
}

/** Why there is no way to a target, and the nearest one that there is a way to. */
export interface UnreachableTarget {
  reason:
    | 'before-backup' // nothing begins early enough
    | 'inside-backup' // before the end of the only backup that begins early enough
    | 'after-last' // behind the last commit, or the end, of the WAL that is here
    | 'in-gap' // in WAL that is missing
    | 'not-on-branch' // on a timeline that the wanted one does not come from
    | 'unknown' // no such name or transaction
    | 'damaged'; // WAL on the way cannot be read
  message: string;
  notes: string[];
  segmentsRead: number;
  nearest?: { lsn: Lsn; time?: TimestampTz; hint: string };
}
