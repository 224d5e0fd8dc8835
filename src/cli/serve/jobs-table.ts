import { type JobStatus, type ServerStatus, verdictOf } from '../../serve/status.js';
import { formatSeconds } from '../../units.js';
import { tableText } from '../table.js';

/** `ok`, `1 bad`, `1 on`, `2 on, 1 bad`: of all jobs of a server. */
export function jobsInBrief({ jobs = [] }: ServerStatus): string {
  const on = jobs.filter(({ state }) => state !== 'waiting').length;
  const bad = jobs.filter((job) => /^(bad|failed)$/.test(verdictOf(job)?.outcome ?? ''));
  const parts = [...(on > 0 ? [`${on} on`] : []), ...(bad.length > 0 ? [`${bad.length} bad`] : [])];
  if (parts.length > 0) return parts.join(', ');
  return jobs.some(({ last }) => last) ? 'ok' : '';
}

const HEADER = ['JOB', 'PLACE', 'STATE', 'LAST', 'AGO', 'NEXT', 'WHY'];

/** Undefined: there are none. */
export function jobsTable({ jobs = [] }: ServerStatus): string | undefined {
  return jobs.length === 0 ? undefined : tableText(HEADER, jobs.map(row));
}

function row(status: JobStatus): string[] {
  const { job, place, state, startedAt, last, next } = status;
  const verdict = verdictOf(status);
  const since = (time: string): string => {
    return formatSeconds(Math.max(0, Date.now() - Date.parse(time)) / 1000);
  };
  const found = verdict?.findings ? `${verdict.findings} findings` : '';
  return [
    ...[job, place, startedAt === undefined ? state : `${state} ${since(startedAt)}`],
    ...[last?.outcome ?? '', last ? since(last.endedAt) : ''],
    ...[next === undefined ? '' : `${next.slice(5, 16).replace('T', ' ')}`],
    last?.error?.message ?? verdict?.error?.message ?? found,
  ];
}
