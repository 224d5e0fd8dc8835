import { join } from 'node:path';
import { parseConninfo } from '../../connection/conninfo/conninfo.js';
import type {
  HookedJob,
  Hooks,
  RetentionConfig,
  ServerStore,
  WorkConfig,
  WorkPlace,
} from '../config/config.js';
import type { JobName } from '../status.js';

/** What a run of a job does; all of it is told to its process. */
export interface JobSpec {
  server: string;
  job: JobName;
  place: WorkPlace;
  /** Of `walkeep`, without secrets. */
  args: readonly string[];
  /** Files whose first lines are in the environment of the command, by the variable. */
  secrets: Readonly<Record<string, string>>;
  before?: readonly string[];
  after?: readonly string[];
  /** Directory of the server, where it is noted what was done. */
  directory: string;
}

/** A job of a server. */
export interface JobPlan {
  /** As cron has it. Absent: only when somebody asks. */
  schedule?: string;
  /** Path or URL that it works at: expiry is never there together with another. */
  at: string;
  spec: JobSpec;
}

/** What two jobs of one server have to differ in. */
export const keyOf = ({ job, place }: { job: JobName; place: string }): string => `${job} ${place}`;

/** Whom a server sees that takes a backup: never the name by which it knows its standby. */
const APPLICATION = 'walkeep backup';

/** All jobs of a server, in the order in which they are begun where their times are the same. */
export function plansOf(work: WorkConfig): JobPlan[] {
  return [...backups(work), ...expiries(work), ...verifications(work), rehearsal(work)];
}

/** Where the jobs of a server work, and how they get there. */
interface Site {
  place: WorkPlace;
  at: string;
  store?: ServerStore;
}

function siteOf({ server, stores }: WorkConfig, place: WorkPlace): Site {
  const store = stores.find(({ name }) => name === place);
  return store ? { place, at: store.place, store } : { place, at: server.directory };
}

function verifications(work: WorkConfig): JobPlan[] {
  const { quick, full } = work.verify;
  const directory = siteOf(work, 'directory');
  // What no identity opens cannot be read: it stays where it is, and a rehearsal elsewhere proves it.
  const readable = work.stores.filter((s) => s.recipients.length === 0 || s.identityFile);
  const all = [directory, ...readable.map(({ name }) => siteOf(work, name))];
  return [
    planOf(work, 'verify_quick', directory, quick, ['verify', '--json', '--quick']),
    ...all.map((site) => planOf(work, 'verify_full', site, full, ['verify', '--json'])),
  ];
}

function backups(work: WorkConfig): JobPlan[] {
  const { server, backup = { to: 'directory', verifyPages: false } } = work;
  const site = siteOf(work, backup.to);
  const compress = backup.compress ?? site.store?.compress;
  const common = [
    ...['backup', '--json', '--no-password', `--dbname=${named(server.connection)}`],
    ...(backup.verifyPages ? ['--verify-pages'] : []),
    ...(compress === undefined ? [] : [`--compress=${compress}`]),
    ...(site.store?.recipients ?? []).map((recipient) => `--recipient=${recipient}`),
  ];
  const one = (job: JobName, schedule: string | undefined, ...args: string[]): JobPlan =>
    planOf(work, job, site, schedule, [...common, ...args]);
  return [
    one('backup_full', backup.full),
    one('backup_differential', backup.differential, '--incremental=full'),
    one('backup_incremental', backup.incremental, '--incremental=last'),
  ];
}

function expiries(work: WorkConfig): JobPlan[] {
  const kept: [Site, RetentionConfig | undefined][] = [
    [siteOf(work, 'directory'), work.retention],
    ...work.stores.map((s): [Site, typeof s.retention] => [siteOf(work, s.name), s.retention]),
  ];
  return kept.flatMap(([site, retention]) => {
    if (!retention) return [];
    const { window, redundancy, at } = retention;
    const args = [
      ...['expire', '--json'],
      ...(window === undefined ? [] : [`--window=${Math.round(window / 1000)}s`]),
      ...(redundancy === undefined ? [] : [`--redundancy=${redundancy}`]),
    ];
    return [planOf(work, 'expire', site, at, args)];
  });
}

function rehearsal(work: WorkConfig): JobPlan {
  const { at, from, sql, dbname, scratch, pgBin, timeout } = {
    ...{ from: 'directory', sql: [] },
    ...work.rehearse,
  } as Partial<NonNullable<WorkConfig['rehearse']>> & { from: WorkPlace; sql: readonly string[] };
  const args = [
    ...['rehearse', '--json'],
    // One line is one query.
    ...sql.map((query) => `--sql=${query.replace(/\s*\n\s*/g, ' ').trim()}`),
    ...(dbname === undefined ? [] : [`--dbname=${dbname}`]),
    ...(scratch === undefined ? [] : [`--scratch=${scratch}`]),
    ...(pgBin === undefined ? [] : [`--pg-bin=${pgBin}`]),
    ...(timeout === undefined ? [] : [`--timeout=${Math.ceil(timeout / 1000)}`]),
  ];
  return planOf(work, 'rehearse', siteOf(work, from), at, args);
}

function planOf(
  { server, hooks }: WorkConfig,
  job: JobName,
  { place, at, store }: Site,
  schedule: string | undefined,
  args: readonly string[],
): JobPlan {
  const kind = job.split('_')[0] as HookedJob;
  const hook = (when: 'before' | 'after') => {
    const found = (hooks as Hooks)[`${when}_${kind}`];
    return found === undefined ? {} : { [when]: found };
  };
  const identity = store?.identityFile === undefined ? [] : [`--identity=${store.identityFile}`];
  return {
    ...(schedule === undefined ? {} : { schedule }),
    at,
    spec: {
      ...{ server: server.name, job, place, directory: server.directory },
      args: [...args, ...identity, '--', at],
      secrets: {
        ...(kind === 'backup' && server.passwordFile !== undefined
          ? { PGPASSWORD: server.passwordFile }
          : {}),
        ...(store?.accessKeyFile === undefined ? {} : { AWS_ACCESS_KEY_ID: store.accessKeyFile }),
        ...(store?.secretKeyFile === undefined
          ? {}
          : { AWS_SECRET_ACCESS_KEY: store.secretKeyFile }),
      },
      ...hook('before'),
      ...hook('after'),
    },
  };
}

/** The connection string with a name of its own, in libpq's form of keywords. */
function named(connection: string): string {
  const values = new Map(parseConninfo(connection)).set('application_name', APPLICATION);
  const quoted = (value: string): string => `'${value.replace(/[\\']/g, '\\$&')}'`;
  return [...values].map(([name, value]) => `${name}=${quoted(value)}`).join(' ');
}

/** Where it is noted what was done for a server, in its directory. */
export const memoryFile = (directory: string): string => join(directory, '.walkeep-jobs');
