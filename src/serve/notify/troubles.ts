import { Cron } from 'croner';
import {
  type JobName,
  type JobStatus,
  type ServerStatus,
  type TroubleStatus,
  verdictOf,
} from '../status.js';

/** A receiver that was begun so often again within `RESTARTS_WITHIN` milliseconds does not get on. */
export const MANY_RESTARTS = 3;
export const RESTARTS_WITHIN = 600_000;
/** Seconds that a store may be behind at least: a segment takes its time. */
export const STORE_BEHIND = 600;
/** Of what a slot may keep the part that is left when it becomes little. */
export const SLOT_LOW = 0.2;

/** Something that is wrong now. */
export interface Found extends Omit<TroubleStatus, 'since'> {
  /** The server; absent: all of it. */
  server?: string;
  /** Milliseconds; absent: since it was found. */
  since?: number;
  /** Milliseconds for which it has to be so before it counts. */
  patience?: number;
}

/** What is known beside the servers' own status. */
export interface Circumstances {
  configIsGood: boolean;
  /** Milliseconds, of `Date.now()`; `begun`: when this program did. */
  now: number;
  begun: number;
  /** Times that the server's receiver was begun again within `RESTARTS_WITHIN`. */
  restarts(server: string): number;
}

/**
 * All that is wrong, and nothing else: what the page, the metrics, a webhook and the alert rules say.
 * That nothing happens is never wrong.
 */
export function findTroubles(servers: readonly ServerStatus[], around: Circumstances): Found[] {
  const all = servers.flatMap((server) =>
    [
      ...received(server, around),
      ...kept(server),
      ...shipped(server),
      ...worked(server, around),
    ].map((found): Found => ({ ...found, server: server.name })),
  );
  if (around.configIsGood) return all;
  const text = 'the configuration has a fault; the one before goes on';
  return [...all, { kind: 'reload', severity: 'warning', text }];
}

/** Of receiving, and what could be lost. */
function* received(server: ServerStatus, around: Circumstances): Generator<Found> {
  const { name, state, since, ended, silentSeconds, rpoSeconds, rpoLimitSeconds: limit } = server;
  if (limit > 0 && rpoSeconds > limit) {
    const text = `WAL of more than ${limit} s would be lost with the server`;
    yield { kind: 'rpo', severity: 'critical', text };
  }
  const restarts = around.restarts(name);
  if (state === 'held') {
    const why = ended ? `: ${ended.message}` : '';
    const text = `nothing is received until somebody looks${why}`;
    yield { kind: 'receiver', severity: 'critical', text, since: Date.parse(since) };
  } else if (silentSeconds !== undefined) {
    yield { kind: 'receiver', severity: 'critical', text: 'the receiver hangs' };
  } else if (restarts >= MANY_RESTARTS) {
    const why = ended ? `; at last: ${ended.message}` : '';
    const minutes = RESTARTS_WITHIN / 60_000;
    const text = `the receiver ended again and again, ${restarts} times in ${minutes} min${why}`;
    yield { kind: 'receiver', severity: 'warning', text };
  }
  for (const [member, { covers, message }] of Object.entries(server.receiver?.members ?? {})) {
    if (covers === true) continue;
    const text = `after a failover to member ${member} WAL may be missing: ${message}`;
    // One that is begun again is not known for a moment.
    yield { kind: 'slot', about: member, severity: 'warning', text, patience: 60_000 };
  }
}

/** Of what the archive holds, and what its server keeps for it. */
function* kept({ archive }: ServerStatus): Generator<Found> {
  if (!archive) return;
  if (archive.error) {
    const text = `the archive cannot be read: ${archive.error.message}`;
    // WAL may be acknowledged into a directory that is gone; a disk that is slow, or hangs, may come back.
    const isRefused = archive.error.code === 'WK_ARCHIVE_ACCESS';
    const severity = isRefused ? 'critical' : 'warning';
    const patience = isRefused ? 60_000 : 600_000;
    yield { kind: 'verify', about: 'archive', severity, text, patience };
  }
  const gaps = archive.gaps.filter(({ accepted }) => !accepted);
  const [first] = gaps;
  if (first) {
    const more = gaps.length > 1 ? `, and ${gaps.length - 1} more` : '';
    const text = `WAL is missing on timeline ${first.timeline} from ${first.from} to ${first.to}${more}`;
    yield { kind: 'gap', severity: 'critical', text };
  }
  const { slot } = archive;
  if (!slot || slot.error) return;
  const { name, exists, walStatus, retainedBytes = 0, safeBytes } = slot;
  if (!exists) {
    const text = `the server has no slot "${name}": it may remove WAL that is not here yet`;
    // At a failover it may be seconds late.
    yield { kind: 'slot', severity: 'critical', text, patience: 30_000 };
  } else if (walStatus === 'lost') {
    yield { kind: 'slot', severity: 'critical', text: `slot "${name}" is lost` };
  } else if (walStatus === 'unreserved') {
    const text = `slot "${name}" is about to be lost: WAL that it needs may go at the next checkpoint`;
    yield { kind: 'slot', severity: 'critical', text };
  } else if (safeBytes !== undefined && safeBytes < SLOT_LOW * (safeBytes + retainedBytes)) {
    const text = `slot "${name}" will be lost soon: it may keep little more WAL`;
    yield { kind: 'slot', severity: 'warning', text };
  }
}

function* shipped({ stores = [], rpoLimitSeconds }: ServerStatus): Generator<Found> {
  for (const { name: about, state, error, rpoSeconds, since } of stores) {
    const why = error ? `: ${error.message}` : '';
    if (state === 'held') {
      const text = `nothing is shipped to ${about} until somebody looks${why}`;
      yield { kind: 'ship', about, severity: 'critical', text, since: Date.parse(since) };
    } else if (rpoSeconds > storeLimit(rpoLimitSeconds)) {
      const text = `${about} lacks WAL of more than ${storeLimit(rpoLimitSeconds)} s${why}`;
      yield { kind: 'ship', about, severity: 'warning', text };
    }
  }
}

/** Seconds that a store of a server may be behind. */
export function storeLimit(rpoLimitSeconds: number): number {
  return Math.max(STORE_BEHIND, rpoLimitSeconds);
}

/** Of jobs, and what they were to bring about. */
function* worked(server: ServerStatus, around: Circumstances): Generator<Found> {
  const { jobs = [], backupLimitSeconds: limit } = server;
  for (const status of jobs) {
    const found = status.job.startsWith('verify_') ? verified(status, around) : done(status, jobs);
    if (found) yield found;
  }
  if (limit === undefined) return;
  const newest = newestBackup(server);
  const unread = server.archive?.places?.find((one) => one.readAt === undefined && one.error);
  if (newest === undefined) {
    if (!unread) return;
    const why = `backups in ${unread.place} cannot be read: ${unread.error?.message}`;
    const text = `the age of the newest backup is not known: ${why}`;
    yield { kind: 'backup', severity: 'warning', text, patience: 600_000 };
  } else if (newest === 0) {
    yield { kind: 'backup', severity: 'critical', text: 'there is no backup that is complete' };
  } else if (around.now - newest > limit * 1000) {
    const text = `the newest backup is older than ${limit} s`;
    yield { kind: 'backup', severity: 'critical', text };
  }
}

/** When the newest backup that is complete ended, milliseconds; 0: there is none. Undefined: not known. */
export function newestBackup({ archive }: ServerStatus): number | undefined {
  if (archive?.readAt === undefined) return undefined;
  // One that was not looked at yet may have a newer one.
  if (archive.places?.some(({ readAt }) => readAt === undefined)) return undefined;
  const ends = (archive?.backups ?? [])
    .filter(({ state }) => state === 'complete')
    .map(({ endedAt, startedAt }) => Date.parse(endedAt ?? startedAt ?? ''))
    .filter((end) => !Number.isNaN(end));
  return Math.max(0, ...ends);
}

function verified(status: JobStatus, { now, begun }: Circumstances): Found | undefined {
  const { job, place, last, lastSuccess, schedule } = status;
  const about = aboutOf(status);
  const verdict = verdictOf(status);
  if (verdict?.outcome === 'bad') {
    const { findings, endedAt } = verdict;
    const what =
      findings === undefined ? 'faults' : `${findings} ${findings === 1 ? 'fault' : 'faults'}`;
    const text = `${NAMES[job]} of ${place} found ${what}`;
    return { kind: 'verify', about, severity: 'critical', text, since: Date.parse(endedAt) };
  }
  if (schedule === undefined) return undefined;
  const since = lastSuccess === undefined ? begun : Date.parse(lastSuccess);
  if (since >= dueSince(schedule, now)) return undefined;
  const why = last?.error ? `: ${last.error.message}` : '';
  const text = `${NAMES[job]} of ${place} did not succeed for two of its times${why}`;
  return { kind: 'verify', about, severity: 'warning', text };
}

/** A job that failed, unless another of its kind succeeded at that place since. */
function done(status: JobStatus, all: readonly JobStatus[]): Found | undefined {
  const { job, place } = status;
  const last = verdictOf(status);
  if (last?.outcome !== 'failed' && last?.outcome !== 'bad') return undefined;
  const kind = job.split('_')[0] as 'backup' | 'expire' | 'rehearse';
  const later = all.some(
    (other) =>
      other.job.startsWith(kind) &&
      other.place === place &&
      Date.parse(other.lastSuccess ?? '') > Date.parse(last.endedAt),
  );
  if (later) return undefined;
  const why = last.error ? `: ${last.error.message}` : '';
  const text = `${NAMES[job]} of ${place} failed${why}`;
  const severity = kind === 'expire' ? 'warning' : 'critical';
  return { kind, about: aboutOf(status), severity, text, since: Date.parse(last.endedAt) };
}

const aboutOf = ({ job, place }: JobStatus): string => `${job} ${place}`;

const NAMES: Readonly<Record<JobName, string>> = {
  verify_quick: 'the quick check',
  verify_full: 'the full check',
  backup_full: 'the full backup',
  backup_differential: 'the differential backup',
  backup_incremental: 'the incremental backup',
  expire: 'the expiry',
  rehearse: 'the rehearsal',
};

/** Of schedules, until another time of theirs has come: who looks each second asks for the same. */
const known = new Map<string, { before: number; next: number; second: number }>();

/** Whoever did not succeed since then missed two times of a schedule. */
function dueSince(schedule: string, now: number): number {
  const last = known.get(schedule);
  if (last && now >= last.before && now < last.next) return last.second;
  const cron = new Cron(schedule, { timezone: 'UTC', mode: '5-part', paused: true });
  const at = new Date(now);
  const [first, second] = cron.previousRuns(2, at);
  const next = cron.nextRun(at)?.getTime() ?? Number.POSITIVE_INFINITY;
  const found = { before: first?.getTime() ?? now, next, second: second?.getTime() ?? 0 };
  if (known.size > 1000) known.clear();
  known.set(schedule, found);
  return found.second;
}
