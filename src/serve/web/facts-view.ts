import { formatLsn, parseLsn } from '../../lsn.js';
import { formatBytes } from '../../units.js';
import type { WorkConfig } from '../config/config.js';
import { storeLimit } from '../notify/troubles.js';
import { type JobStatus, type ServerStatus, verdictOf } from '../status.js';
import { type Content, type Html, html, joined } from './html.js';
import { ago, ahead, span, timed } from './times.js';
import type { Level, Shown } from './troubles.js';

export const SIGNS: Readonly<Record<Level, string>> = { good: '✓', warn: '!', bad: '✕' };
const WORDS: Readonly<Record<Level, string>> = { good: 'well', warn: 'warning', bad: 'alarm' };

/** A sign that is seen without colour, and heard. */
export function sign(level: Level): Html {
  return html`<span class="sign ${level}" role="img" aria-label="${WORDS[level]}">${SIGNS[level]}</span>`;
}

/** One fact: what it is, its value, and more in small; `level` only where it is one to judge. */
export function fact(label: string, value: Content, more?: Content, level?: Level): Html {
  const mark = level && level !== 'good' && html`${sign(level)} `;
  return html`<div class="fact ${level}"><dt>${label}</dt><dd>${mark}<b>${value}</b>${more && html` <small>${more}</small>`}</dd></div>`;
}

export function troublesView(troubles: readonly Shown[], now: number): Content {
  if (troubles.length === 0) return undefined;
  return html`<ul class="troubles">${joined(
    troubles.map(
      ({ level, text, hint, since }) =>
        html`<li class="${level}">${sign(level)} ${text}${since && html` <small>since ${timed(since, (at) => ago(at, now).replace(' ago', ''))}</small>`}${hint && html` <small>${hint}</small>`}</li>`,
    ),
  )}</ul>`;
}

/** What stands beside the bar. */
export function factsView(server: ServerStatus, work: WorkConfig | undefined, now: number): Html {
  const { rpoSeconds, rpoLimitSeconds, archive, stores = [] } = server;
  return html`<dl class="facts">
${fact('Could be lost', span(rpoSeconds * 1000), `of at most ${span(rpoLimitSeconds * 1000)}`, rpoSeconds > rpoLimitSeconds ? 'bad' : 'good')}
${received(server, work)}
${archive?.slot && slotFact(archive.slot)}
${backupFact(server, work, now)}
${verifyFact(server, now)}
${joined(stores.map((store) => storeFact(store, rpoLimitSeconds)))}
${jobFact(server, now)}
</dl>`;
}

function received({ state, receiver }: ServerStatus, work: WorkConfig | undefined): Html {
  const mode = work?.server.synchronous ? 'synced as it comes' : 'synced every 5 s';
  if (!receiver?.position) return fact('Received', '–', mode);
  const { flushed, serverEnd } = receiver.position;
  // What a server has that is not heard of, nobody knows.
  if (state !== 'streaming') return fact('Received', `up to ${flushed}`, mode);
  const missing = Math.max(0, Number(parseLsn(serverEnd) - parseLsn(flushed)));
  return fact(
    work?.server.synchronous ? 'Synchronous' : 'Received',
    missing === 0 ? 'all durable' : `${formatBytes(missing)} not durable`,
    `${formatLsn(parseLsn(flushed))}, ${mode}`,
  );
}

function slotFact(slot: NonNullable<NonNullable<ServerStatus['archive']>['slot']>): Html {
  const { name, exists, active, walStatus, retainedBytes, safeBytes, error } = slot;
  if (error) return fact('Slot', 'not known', `${name}: ${error.message}`, 'warn');
  if (!exists) return fact('Slot', 'missing', name, 'bad');
  const level = walStatus === 'lost' || walStatus === 'unreserved' ? 'bad' : 'good';
  const more = [
    name,
    ...(retainedBytes === undefined ? [] : [`keeps ${formatBytes(retainedBytes)}`]),
    ...(safeBytes === undefined ? [] : [`${formatBytes(safeBytes)} left`]),
  ].join(', ');
  return fact(
    'Slot',
    `${walStatus ?? 'there'}${active === false ? ', not in use' : ''}`,
    more,
    level,
  );
}

function backupFact({ archive }: ServerStatus, work: WorkConfig | undefined, now: number): Content {
  if (archive?.readAt === undefined) return undefined;
  const usable = archive.backups
    .filter(({ restorableTo, endedAt }) => restorableTo !== undefined && endedAt !== undefined)
    .sort((a, b) => Date.parse(a.endedAt as string) - Date.parse(b.endedAt as string));
  const last = usable.at(-1);
  if (!last?.endedAt) return fact('Backup', 'none', undefined, 'warn');
  const age = now - Date.parse(last.endedAt);
  const limit = work?.backup?.maxAge;
  const level = limit !== undefined && age > limit ? 'bad' : 'good';
  const count = `${last.type}, ${usable.length} usable`;
  return fact(
    'Backup',
    timed(last.endedAt, (at) => ago(at, now)),
    count,
    level,
  );
}

function verifyFact({ jobs = [] }: ServerStatus, now: number): Content {
  const all = jobs.filter(({ job }) => job === 'verify_quick' || job === 'verify_full');
  const ended = all
    .flatMap((one) => {
      const verdict = verdictOf(one);
      return verdict ? [{ ...verdict, job: one.job }] : [];
    })
    .sort((a, b) => Date.parse(a.endedAt) - Date.parse(b.endedAt));
  const last = ended.at(-1);
  if (!last) return all.length > 0 && fact('Verified', 'not yet');
  const failed = ended.findLast(({ outcome }) => outcome === 'bad' || outcome === 'failed');
  // A quick look that went well does not undo what a full one found.
  const told = failed && failed.job === 'verify_full' ? failed : last;
  const level = told.outcome === 'good' || told.outcome === 'ended' ? 'good' : 'bad';
  const how = told.job === 'verify_full' ? 'full' : 'quick';
  const what =
    told.outcome === 'bad'
      ? `${told.findings ?? 'some'} ${told.findings === 1 ? 'finding' : 'findings'}`
      : told.outcome;
  return fact(
    'Verified',
    timed(told.endedAt, (at) => ago(at, now)),
    `${how}, ${what}`,
    level,
  );
}

function storeFact(store: NonNullable<ServerStatus['stores']>[number], limit: number): Html {
  const { name, state, rpoSeconds, queueSegments = 0, queueBytes } = store;
  const waits =
    queueSegments === 0
      ? 'nothing waits'
      : `${queueSegments} waiting${queueBytes === undefined ? '' : `, ${formatBytes(queueBytes)}`}`;
  const late = rpoSeconds > storeLimit(limit);
  const level =
    state === 'held' ? 'bad' : state === 'away' || state === 'restarting' || late ? 'warn' : 'good';
  const value =
    state === 'shipping'
      ? rpoSeconds === 0
        ? 'up to date'
        : `${span(rpoSeconds * 1000)} behind`
      : state;
  return fact(`Store ${name}`, value, waits, level);
}

export function jobName({ job, place }: Pick<JobStatus, 'job' | 'place'>): string {
  const name = job.replace('_', ' ');
  return place === 'directory' ? name : `${name}, ${place}`;
}

function jobFact({ jobs = [] }: ServerStatus, now: number): Content {
  if (jobs.length === 0) return undefined;
  const running = jobs.filter(({ state }) => state === 'running');
  const [one] = running;
  if (one) {
    const more =
      one.startedAt && timed(one.startedAt, (at) => `since ${ago(at, now).replace(' ago', '')}`);
    return fact('Now', running.map(jobName).join('; '), more);
  }
  const next = jobs
    .filter((job) => job.next !== undefined)
    .sort((a, b) => Date.parse(a.next as string) - Date.parse(b.next as string))[0];
  if (!next?.next) return undefined;
  return fact(
    'Next',
    jobName(next),
    timed(next.next, (at) => ahead(at, now)),
  );
}

/** State, and since when. */
export function stateView({ state, since }: ServerStatus, level: Level, now: number): Html {
  return html`<span class="state ${level}">${SIGNS[level]} ${state}</span> <small>since ${timed(since, (at) => ago(at, now).replace(' ago', ''))}</small>`;
}

/** Which server it is that is received from. */
export function sourceView({ receiver }: ServerStatus): Content {
  if (!receiver?.server) return undefined;
  const { host, port, version, timeline } = receiver.server;
  const major = Math.floor(version / 10_000);
  const at = host.startsWith('/') ? host : `${host}:${port}`;
  return html`PostgreSQL ${major} at ${at}, timeline ${receiver.position?.timeline ?? timeline}`;
}
