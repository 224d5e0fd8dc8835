import { recoverySteps } from '../../restore/reach/next-steps.js';
import type { WorkConfig } from '../config/config.js';
import type { ServerStatus } from '../status.js';
import { commandText, identityFiles, placesOf } from './command-text.js';
import type { NearTarget, PlanAnswer, PlanRequest, RestoreQuery } from './messages.js';
import { Planner } from './planner.js';
import { type QueryFault, readQuery } from './query.js';

/** What is answered to somebody who asks for a restore. */
export type BuilderAnswer =
  | { state: 'invalid'; faults: QueryFault[] }
  | (Built & Extract<PlanAnswer, { state: 'planned' }>)
  | ({ query: RestoreQuery } & Extract<PlanAnswer, { state: 'refused' }>)
  | Extract<PlanAnswer, { state: 'failed' }>;

export interface Built {
  query: RestoreQuery;
  /** Lines for a shell, on the machine that is to have the server. */
  command: string;
  /** What that machine has to have, and what to do there first. */
  needs: string[];
  /** What to do behind it. */
  steps: string[];
}

/** The restore builder: says what a restore would do and how it is done, and does nothing. */
export class RestoreBuilder {
  readonly #planner: Planner;

  constructor(planner = new Planner()) {
    this.#planner = planner;
  }

  /** @param status of the server, as it is now */
  async answer(
    work: WorkConfig | undefined,
    status: ServerStatus | undefined,
    params: URLSearchParams,
  ): Promise<BuilderAnswer> {
    // It is about to go.
    if (!work) return { state: 'failed', error: { code: 'WK_USAGE', message: 'no such server' } };
    const read = readQuery(params, work);
    if ('faults' in read) return { state: 'invalid', faults: read.faults };
    const { query } = read;
    const answer = await this.#planner.plan(requestOf(query, work), stateOf(status));
    if (answer.state === 'failed') return answer;
    if (answer.state === 'refused') return { query, ...answer };
    const { plan } = answer;
    return {
      ...{ ...answer, query, command: commandText(plan, query, work) },
      needs: needsOf(answer.plan, query, work),
      steps: recoverySteps({
        ...{ dataDir: query.dataDir, lsn: plan.lsn, isLatest: plan.target[1] === 'latest' },
        ...{ action: query.action ?? 'pause', standby: false },
      }),
    };
  }

  end(): Promise<void> {
    return this.#planner.end();
  }
}

/** Of the answer as it goes out. */
export function statusCode({ state }: BuilderAnswer): number {
  return state === 'invalid' ? 400 : state === 'failed' ? 503 : 200;
}

/** The query that leads to a target near another one. */
export function nearQuery(query: RestoreQuery, near: NearTarget): URLSearchParams {
  const { to, backup, timeline } = near;
  const own = backup ?? query.backup;
  return paramsOf({
    ...{ to, timeline, from: query.from, dataDir: query.dataDir, before: false },
    ...(query.action ? { action: query.action } : {}),
    ...(own === undefined ? {} : { backup: own }),
  });
}

/** As `readQuery` takes it. */
export function paramsOf(query: RestoreQuery): URLSearchParams {
  const { to, before, timeline, backup, from, dataDir, action } = query;
  const params = new URLSearchParams({ to });
  if (before) params.set('before', 'on');
  if (timeline !== undefined) params.set('timeline', `${timeline}`);
  if (backup !== undefined) params.set('backup', backup);
  for (const name of from) params.append('from', name);
  params.set('pgdata', dataDir);
  if (action !== undefined) params.set('action', action);
  return params;
}

function requestOf(query: RestoreQuery, work: WorkConfig): PlanRequest {
  const { to, before, timeline, backup } = query;
  const places = placesOf(query, work).map((one) => {
    const { name, place } = one;
    if (!('recipients' in one)) return { name, place };
    const { accessKeyFile, secretKeyFile, identityFile } = one;
    return JSON.parse(JSON.stringify({ name, place, accessKeyFile, secretKeyFile, identityFile }));
  });
  return {
    ...{ to, before, places },
    ...(timeline === undefined ? {} : { timeline }),
    ...(backup === undefined ? {} : { backup }),
  };
}

/** What of an archive changes more seldom than its end does. */
function stateOf(status: ServerStatus | undefined): string {
  const { archive, receiver, totals } = status ?? {};
  return JSON.stringify([archive?.readAt, receiver?.position?.timeline, totals?.segments]);
}

function needsOf(
  { backup }: Extract<PlanAnswer, { state: 'planned' }>['plan'],
  query: RestoreQuery,
  work: WorkConfig,
): string[] {
  const places = placesOf(query, work);
  const stores = work.stores.filter(({ name }) => places.some((one) => one.name === name));
  const s3 = stores.filter(({ place }) => /^s3:/i.test(place));
  const needs = [
    `PostgreSQL ${backup.version.split('.')[0]} and walkeep, and an empty directory ${query.dataDir}, or none; run it as the user that the server runs as`,
  ];
  if (places.some(({ name }) => name === 'directory')) {
    needs.push(
      `${work.server.directory} as it is here: on another machine mount it there, or take only stores`,
    );
  }
  if (s3.length > 0) {
    const names = s3.map(({ name }) => name).join(', ');
    needs.push(
      `credentials for ${names}, for the command and for the server: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or whatever else walkeep finds there`,
    );
  }
  if (new Set(s3.flatMap(({ accessKeyFile }) => accessKeyFile ?? [])).size > 1) {
    needs.push('the stores have different keys, and an environment has one: take one of them');
  }
  const files = identityFiles(query, work);
  if (files.length > 0) {
    needs.push(`${files.join(', ')}: readable for the user of the server, there too`);
  } else if (backup.encrypted || stores.some(({ recipients }) => recipients.length > 0)) {
    needs.push('what is encrypted needs its identity: add --identity FILE');
  }
  for (const location of backup.tablespaces) {
    needs.push(`${location} for a tablespace, empty, or -T ${location}=NEW`);
  }
  return needs;
}
