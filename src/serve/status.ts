import { WalkeepError } from '../errors.js';
import type { ReceiverTally } from '../receive/options.js';
import { withoutSecrets } from '../text.js';
import type { Trouble } from './config/config.js';

/** An error as it goes from process to process, and to whoever asks. */
export interface ErrorReport {
  code: string;
  message: string;
  hint?: string;
  detail?: string;
}

export function reportOf(error: unknown): ErrorReport {
  if (!(error instanceof WalkeepError)) {
    const text = error instanceof Error ? error.message || error.name : String(error);
    return { code: 'WK_INTERNAL', message: withoutSecrets(text.split('\n')[0] ?? '') };
  }
  const { code, message, hint, detail } = error;
  return {
    ...{ code, message: withoutSecrets(message) },
    ...(hint === undefined ? {} : { hint: withoutSecrets(hint) }),
    ...(detail === undefined ? {} : { detail: withoutSecrets(detail) }),
  };
}

/** Those of a report that a line of the log has beside its message. */
export function fieldsOf({ code, hint, detail }: Partial<ErrorReport>): Partial<ErrorReport> {
  return {
    ...(code === undefined ? {} : { code }),
    ...(hint === undefined ? {} : { hint }),
    ...(detail === undefined ? {} : { detail }),
  };
}

/** What ended with `report` is held: when a person has looked it goes on by a command. */
export function heldReport(report: ErrorReport, server: string): ErrorReport {
  const before = report.hint === undefined ? '' : `${report.hint} `;
  return { ...report, hint: `${before}Then: walkeep ctl resume -c FILE ${server}` };
}

/** What a receiver is at. LSNs are texts, as PostgreSQL writes them. */
export interface ReceiverSnapshot {
  state: 'connecting' | 'streaming' | 'disconnected';
  server?: { host: string; port: number; version: number; systemId: string; timeline: number };
  position?: {
    received: string;
    written: string;
    flushed: string;
    serverEnd: string;
    timeline: number;
  };
  /** Milliseconds since all WAL of the server was durable here, 0: it is. Absent: not seen yet. */
  recoveryAge?: number;
  /** Segments completed, and connections made, since the process began. */
  segments: number;
  connections: number;
  /** Of this process. */
  counts?: ReceiverCounts;
  /** Why the last connection ended; gone with the next one that streams. */
  error?: ErrorReport;
  /** By member: whether its slot keeps all that is not here yet; null: not known. */
  members?: Record<string, { covers: boolean | null; message: string }>;
}

/** What a receiver counts. */
export interface ReceiverCounts {
  /** Bytes of WAL that came, also those that came again. */
  receivedBytes: number;
  /** Times that WAL which came was not stored: it failed the check, or was not what is stored. */
  refused: number;
  /** Times that another connection was to be made, by the code of why. */
  reconnects: Readonly<Record<string, number>>;
  /** As the receiver has it. */
  syncs: ReceiverTally['syncs'];
  /** Bytes kept beyond where the way that is followed left a timeline, by timeline. */
  diverged: Readonly<Record<string, number>>;
}

/**
 * - `starting`: its process begins; `connecting`, `streaming`, `disconnected`: as it says itself
 * - `restarting`: its process ended, and another is begun after a while
 * - `held`: it ended for what a person has to look at, and stays so until `resume`
 * - `paused`: as somebody asked
 */
export type ServerState =
  | ReceiverSnapshot['state']
  | 'starting'
  | 'restarting'
  | 'held'
  | 'paused'
  | 'stopping';

/** One server, as `walkeep status --json` prints it. */
export interface ServerStatus {
  name: string;
  state: ServerState;
  /** Since when, as ISO 8601. */
  since: string;
  directory: string;
  /** Of its receiver, while there is one. */
  pid?: number;
  /** Times that its receiver was begun again since "serve" began or its configuration changed. */
  restarts: number;
  /** Of what its receiver ended last time, or why it is held. */
  ended?: ErrorReport;
  /** When another receiver is begun. */
  retryAt?: string;
  /** Seconds since its process was heard of, where that is too long: it hangs. */
  silentSeconds?: number;
  receiver?: ReceiverSnapshot;
  /**
   * Seconds since all WAL that the server had was durable here: what would be lost with the server. 0
   * only while the server says so itself; at first since "serve" began.
   */
  rpoSeconds: number;
  /** Segments completed and connections made since "serve" began. */
  totals: { segments: number; connections: number };
  /** Counted since "serve" began, over all processes of its receiver; absent: none was heard of. */
  counts?: ReceiverCounts;
  /** Seconds that `rpoSeconds` may be before it is an alarm. */
  rpoLimitSeconds: number;
  /** Seconds that the newest backup may be old before it is an alarm. */
  backupLimitSeconds?: number;
  /** What is done for it at times, by what it is. */
  jobs?: JobStatus[];
  /** The stores that its WAL is shipped to. */
  stores?: StoreStatus[];
  /** What its archive holds. */
  archive?: ArchiveStatus;
  /** What is wrong with it, the worst first. */
  troubles?: TroubleStatus[];
}

/**
 * Why nothing comes from a server: of a process that runs what it says itself, else why it ended, whatever
 * was wrong with a connection before. Nothing of one that is paused.
 */
export function whyAway({ state, ended, receiver }: ServerStatus): ErrorReport | undefined {
  const error = receiver?.error;
  if (state === 'paused') return undefined;
  if (state === 'connecting' || state === 'disconnected') return error ?? ended;
  return ended ?? error;
}

/** Something that is wrong, as the page, the metrics and a webhook tell of it. */
export interface TroubleStatus {
  kind: Trouble;
  /** Which of several of its kind: a store, a member, a job. */
  about?: string;
  /** `critical`: something is lost, or would be. */
  severity: 'critical' | 'warning';
  text: string;
  /** ISO 8601. */
  since: string;
}

export type JobName =
  | 'verify_quick'
  | 'verify_full'
  | 'backup_full'
  | 'backup_differential'
  | 'backup_incremental'
  | 'expire'
  | 'rehearse';

/**
 * How a run of a job ended. `good`; `bad`: it looked, and something is wrong; `failed`: it could not
 * do what it was for; `ended`: it was ended from outside.
 */
export type JobOutcome = 'good' | 'bad' | 'failed' | 'ended';

/** What made a job run. */
export type JobCause = 'schedule' | 'missed' | 'retry' | 'request';

/** A job of a server. Times are ISO 8601. */
export interface JobStatus {
  job: JobName;
  /** Where it works: "directory" or a store by its name. */
  place: string;
  state: 'waiting' | 'queued' | 'running';
  /** As cron has it, UTC. Absent: only when somebody asks. */
  schedule?: string;
  next?: string;
  /** Of the run that is on. */
  startedAt?: string;
  pid?: number;
  last?: JobEnd;
  /** The one before that still tells how things are, where the last one does not. */
  verdict?: JobEnd;
  lastSuccess?: string;
}

/** A run of a job that is over. */
export interface JobEnd {
  startedAt: string;
  endedAt: string;
  outcome: JobOutcome;
  /** `missed`: its time passed while it could not be begun; `retry`: the one before failed. */
  by: JobCause;
  /** What was found, of what looks. */
  findings?: number;
  error?: ErrorReport;
}

/** The run that tells how things are. */
export const verdictOf = ({ verdict, last }: Pick<JobStatus, 'verdict' | 'last'>) =>
  verdict ?? last;

/** The same once another run is over: one that was broken off says nothing, nor undoes what was found. */
export function verdictAfter(before: JobEnd | undefined, last: JobEnd): JobEnd | undefined {
  const { outcome } = last;
  if (outcome === 'ended') return before;
  return outcome === 'failed' && before?.outcome === 'bad' ? before : last;
}

/** A store that WAL is shipped to. */
export interface StoreStatus {
  /** As the configuration calls it. */
  name: string;
  place: string;
  /**
   * - `shipping`: all is well; `away`: it does not answer or refuses us, and is tried again
   * - `held`: a person has to look, at all of it or at one file; `restarting`: its process ended, another
   *   is begun
   */
  state: 'starting' | 'shipping' | 'away' | 'held' | 'restarting' | 'stopping';
  since: string;
  pid?: number;
  /** Completed segments that are not there yet, and the bytes of WAL in them. */
  queueSegments?: number;
  queueBytes?: number;
  /** Seconds since all that was completed here was there: the age of the oldest that is not; 0: it is. */
  rpoSeconds: number;
  /** Up to here all is there. */
  shippedLsn?: string;
  /** Since "serve" began. */
  totals: { segments: number; failures: number };
  error?: ErrorReport;
}

/**
 * What an archive holds, as it was when it was looked at last. Times are ISO 8601, LSNs texts. Of long
 * lists the newest are here, and `more` has how many are not.
 */
export interface ArchiveStatus {
  /** Absent: it was not read yet; then the rest is empty. */
  readAt?: string;
  /** Why it could not be read lately; the rest is from before. */
  error?: ErrorReport;
  freeBytes?: number;
  segments: number;
  /** On disk. Of compressed segments that were not looked at yet as much as the others take. */
  bytes: number;
  timelines: TimelineStatus[];
  gaps: GapStatus[];
  /** In the order in which they began, those of a place together. */
  backups: BackupStatus[];
  /** Where backups are looked for: the directory first, then each store. */
  places: PlaceStatus[];
  /** The timeline that recovery to `latest` follows. */
  latest?: number;
  /** Times on the way to it that can be restored to, none of which touch or overlap; the oldest first. */
  windows: WindowStatus[];
  /** The same of what is on no way to it: of timelines that were left, say. */
  besideWindows: WindowStatus[];
  /** The slot, as the server that is received from has it. */
  slot?: SlotStatus;
  /** How many are left out. */
  more?: {
    ranges?: number;
    gaps?: number;
    acceptedGaps?: number;
    backups?: number;
    windows?: number;
  };
}

/** From the end of a backup to the last commit in the WAL behind it that has no gap. */
export interface WindowStatus {
  from: string;
  to: string;
  /** The first one that leads there, and where it is. */
  backup: string;
  place?: string;
  timeline: number;
}

/** How the backups of a place were read last. */
export interface PlaceStatus {
  /** "directory", or a store by its name. */
  place: string;
  readAt?: string;
  /** Why they could not be read lately. */
  error?: ErrorReport;
}

export interface TimelineStatus {
  timeline: number;
  parent?: number;
  /** Where it branched off. */
  branch?: string;
  beside?: 'abandoned' | 'unfollowed';
  ranges: {
    from: string;
    to: string;
    segments: number;
    bytes: number;
    firstCommit?: string;
    lastCommit?: string;
  }[];
}

/** WAL that is missing. */
export interface GapStatus {
  timeline: number;
  from: string;
  to: string;
  segments: number;
  /** Of the last commit before it and the first one behind it. */
  after?: string;
  before?: string;
  accepted: boolean;
}

export interface BackupStatus {
  id: string;
  /** "directory", or a store by its name. */
  place: string;
  type: 'full' | 'incremental';
  /** As "walkeep backups" has it: `complete`, `needs-wal`, `damaged`, `running` or `failed`. */
  state: string;
  /** Not to be expired. */
  kept?: boolean;
  /** What an incremental one is based on. */
  parent?: string;
  startedAt?: string;
  endedAt?: string;
  timeline?: number;
  endLsn?: string;
  bytes?: number;
  /** What it can be restored to at last, by the WAL of its place; absent: to nothing. */
  restorableTo?: string;
  /** Why no further, or why to nothing. */
  why?: string;
  /** The same for each timeline that goes on from it, the newest first; `lsn` absent: not to its end. */
  reaches?: { timeline: number; lsn?: string; time?: string; why: string }[];
}

/** Of pg_replication_slots. */
export interface SlotStatus {
  readAt: string;
  name: string;
  exists: boolean;
  active?: boolean;
  /** `reserved`, `extended`, `unreserved`, `lost`. */
  walStatus?: string;
  /** WAL that the server keeps for it. */
  retainedBytes?: number;
  /** What may yet be written before it is lost; absent: no limit. */
  safeBytes?: number;
  error?: ErrorReport;
}

/** What is known of receiving from a server. */
export type ReceivedStatus = Omit<
  ServerStatus,
  keyof WorkStatus | 'rpoLimitSeconds' | 'backupLimitSeconds' | 'troubles'
>;

/** What the parts of "serve" beside receiving know of a server. */
export type WorkStatus = Pick<ServerStatus, 'jobs' | 'stores' | 'archive'>;

/** A line of the log. */
export interface LogEntry {
  level: 'info' | 'warning' | 'error';
  /** What happened, as one word for programs: `connect`, `restart`, `held` … */
  event: string;
  message: string;
  server?: string;
  /** Of the server, that it is about. */
  job?: JobName;
  code?: string;
  hint?: string;
  detail?: string;
}
