import { type Lsn, parseLsn } from '../../lsn.js';
import { newestBackup, storeLimit } from '../notify/troubles.js';
import {
  type JobEnd,
  type JobName,
  type JobOutcome,
  type ServerStatus,
  verdictOf,
} from '../status.js';

/** One number of a server; undefined: it has none. */
type Of = (server: ServerStatus) => number | undefined;
/** Numbers of a server, each with labels beside the server's. */
export type Labelled = readonly [
  labels: Readonly<Record<string, string>>,
  value: number | undefined,
];
type Many = (server: ServerStatus) => readonly Labelled[];

const lsn = (text: string): Lsn => parseLsn(text);
const seconds = (time: string | undefined): number | undefined =>
  time === undefined ? undefined : Date.parse(time) / 1000;

const position =
  (name: 'serverEnd' | 'received' | 'written' | 'flushed'): Of =>
  ({ receiver }) =>
    receiver?.position && Number(lsn(receiver.position[name]));

const verifies = ({ jobs = [] }: ServerStatus) =>
  jobs.filter(({ job }) => job.startsWith('verify_'));
/** Not `job`: that is Prometheus's own. */
const labelsOf = ({ job: task, place }: { job: JobName; place: string }) => ({ task, place });

const OUTCOMES: Readonly<Record<JobOutcome, true>> = {
  ...{ good: true, bad: true, failed: true, ended: true },
};

/** Of each server one number. */
export const GAUGES: Readonly<Record<string, readonly [help: string, of: Of]>> = {
  up: ['1 while WAL is streamed from the server', ({ state }) => (state === 'streaming' ? 1 : 0)],
  rpo_seconds: [
    'Seconds since all WAL that the server had was durable here; 0: it is',
    ({ rpoSeconds }) => rpoSeconds,
  ],
  rpo_limit_seconds: [
    'Seconds that walkeep_rpo_seconds may be, by the configuration',
    ({ rpoLimitSeconds }) => rpoLimitSeconds,
  ],
  server_lsn_bytes: [
    'End of the WAL of the server, as far as it was heard of',
    position('serverEnd'),
  ],
  received_lsn_bytes: ['WAL is received up to here', position('received')],
  written_lsn_bytes: ['WAL is written up to here', position('written')],
  flushed_lsn_bytes: ['WAL is durable up to here', position('flushed')],
  unprotected_bytes: [
    'WAL that the server has and that is not durable here',
    ({ receiver }) =>
      receiver?.position &&
      Math.max(0, Number(lsn(receiver.position.serverEnd) - lsn(receiver.position.flushed))),
  ],
  backup_newest_timestamp_seconds: [
    'When the newest backup that is complete ended; 0: there is none',
    (server) => {
      const newest = newestBackup(server);
      return newest === undefined ? undefined : newest / 1000;
    },
  ],
  backup_limit_seconds: [
    'Seconds that the newest backup may be old, by the configuration',
    ({ backupLimitSeconds }) => backupLimitSeconds,
  ],
  receiver_silent_seconds: [
    'Seconds since the process of the receiver was heard of, where that is too long; else 0',
    ({ silentSeconds = 0 }) => silentSeconds,
  ],
};

/** Of each server one number that only grows. */
export const COUNTERS: Readonly<
  Record<string, readonly [help: string, of: (s: ServerStatus) => number]>
> = {
  segments_completed_total: ['Segments completed', ({ totals }) => totals.segments],
  connections_total: ['Connections made to the server', ({ totals }) => totals.connections],
  receiver_restarts_total: ['Times that an ended receiver was begun again', (s) => s.restarts],
  received_bytes_total: [
    'Bytes of WAL received, also those that came again',
    ({ counts }) => counts?.receivedBytes ?? 0,
  ],
  refused_wal_total: [
    'Times that WAL which came was not stored: it was damaged, or not what is stored',
    ({ counts }) => counts?.refused ?? 0,
  ],
};

/** Of each server several numbers. */
export const MANY: Readonly<
  Record<string, readonly [help: string, labels: readonly string[], of: Many]>
> = {
  member_slot_covers: [
    '1 if the slot on the member keeps all WAL that is not durable here, 0 if not or not known',
    ['member'],
    ({ receiver }) =>
      Object.entries(receiver?.members ?? {}).map(([member, { covers }]) => [
        { member },
        covers === true ? 1 : 0,
      ]),
  ],
  timeline_diverged_bytes: [
    'WAL kept of a timeline beyond where the servers left it, told since "serve" began',
    ['timeline'],
    ({ counts }) =>
      Object.entries(counts?.diverged ?? {}).map(([timeline, bytes]) => [{ timeline }, bytes]),
  ],
  verify_findings: [
    'What the last check that came to its end found',
    ['task', 'place'],
    (server) => verifies(server).map((status) => [labelsOf(status), foundBy(verdictOf(status))]),
  ],
  verify_last_success_timestamp_seconds: [
    'When a check last found nothing wrong',
    ['task', 'place'],
    (server) => verifies(server).map((job) => [labelsOf(job), seconds(job.lastSuccess)]),
  ],
  job_running: [
    '1 while the job runs',
    ['task', 'place'],
    ({ jobs = [] }) => jobs.map((job) => [labelsOf(job), job.state === 'running' ? 1 : 0]),
  ],
  job_last_success_timestamp_seconds: [
    'When the job last succeeded',
    ['task', 'place'],
    ({ jobs = [] }) => jobs.map((job) => [labelsOf(job), seconds(job.lastSuccess)]),
  ],
  job_last_outcome: [
    '1 for how the job ended last, 0 for all others',
    ['task', 'place', 'outcome'],
    ({ jobs = [] }) =>
      jobs.flatMap((job) =>
        Object.keys(OUTCOMES).map(
          (outcome): Labelled => [
            { ...labelsOf(job), outcome },
            job.last && (outcome === job.last.outcome ? 1 : 0),
          ],
        ),
      ),
  ],
  store_rpo_limit_seconds: [
    'Seconds that walkeep_store_rpo_seconds may be before it is a trouble',
    ['store'],
    ({ stores = [], rpoLimitSeconds }) =>
      stores.map(({ name: store }) => [{ store }, storeLimit(rpoLimitSeconds)]),
  ],
};

function foundBy(last: JobEnd | undefined): number | undefined {
  if (last?.outcome === 'good') return last.findings ?? 0;
  return last?.outcome === 'bad' ? (last.findings ?? 1) : undefined;
}
