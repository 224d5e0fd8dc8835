import { isDeepStrictEqual } from 'node:util';
import { UsageError } from '../../errors.js';
import type { WorkConfig } from '../config/config.js';
import { serverNamed } from '../named.js';
import type { Part, Tell } from '../part.js';
import { fieldsOf, type JobCause, type LogEntry, reportOf, type WorkStatus } from '../status.js';
import { type Clock, Job, type Run } from './job.js';
import { type JobProcess, type LaunchJob, launchJob } from './launch.js';
import type { FromJob, RunEnd } from './messages.js';
import { type JobPlan, keyOf, plansOf } from './plan.js';
import { Queue } from './queue.js';
import type { JobRequest, RunReport } from './request.js';

/** Milliseconds between looks at the clock. */
const LOOK = 1000;
/** Milliseconds for processes to end, longer than they have themselves: a disk may hold one for ever. */
const PATIENCE = 50_000;
/** Runs whose end is known to who asks later. */
const MOST_ENDS = 500;

export interface JobsOptions {
  tell: Tell;
  /** Nothing is received from a server now, as somebody asked: a backup would wait for its WAL. */
  isPaused(server: string): boolean;
  launch?: LaunchJob;
  clock?: Clock;
}

interface Server {
  directory: string;
  jobs: Map<string, Job>;
  /** It is known what was done before. */
  isKnown: boolean;
}

const CLOCK: Clock = { wall: () => Date.now(), steady: () => performance.now() };

/** The jobs of all servers. Each run is a process; this one waits for none, and touches no disk. */
export class Jobs implements Part {
  readonly #tell: Tell;
  readonly #isPaused: JobsOptions['isPaused'];
  readonly #launch: LaunchJob;
  readonly #clock: Clock;
  readonly #servers = new Map<string, Server>();
  readonly #queue = new Queue();
  readonly #ends = new Map<number, RunReport>();
  readonly #recalls = new Set<JobProcess>();
  #timer: NodeJS.Timeout | undefined;
  #lastId = 0;
  #isEnding = false;

  constructor({ tell, isPaused, launch = launchJob, clock = CLOCK }: JobsOptions) {
    this.#tell = tell;
    this.#isPaused = isPaused;
    this.#launch = launch;
    this.#clock = clock;
  }

  async apply(work: readonly WorkConfig[]): Promise<void> {
    this.#timer ??= setInterval(() => this.look(), LOOK);
    const now = this.#clock.wall();
    const wanted = new Map(work.map((one) => [one.server.name, one]));
    const gone: Job[] = [];
    for (const [name, server] of this.#servers) {
      const plans = wanted.get(name);
      const moved = plans && plans.server.directory !== server.directory;
      if (plans && !moved) continue;
      gone.push(...obsolete([...server.jobs.values()]));
      this.#servers.delete(name);
    }
    const fresh: string[] = [];
    for (const [name, one] of wanted) {
      const { directory } = one.server;
      const server = this.#servers.get(name) ?? { directory, jobs: new Map(), isKnown: false };
      if (!this.#servers.has(name)) fresh.push(name);
      this.#servers.set(name, server);
      gone.push(...replan(server, plansOf(one), now));
    }
    await this.#endRunsOf(gone);
    this.#recall(fresh);
    this.look();
  }

  /** Looks at the clock: what is due waits for its turn, and what may begins. */
  look(): void {
    if (this.#isEnding) return;
    for (const [name, { jobs, isKnown }] of this.#servers) {
      if (!isKnown) continue;
      for (const job of jobs.values()) {
        const by = job.cause(this.#clock);
        if (by === undefined) continue;
        if (this.#mustWait(name, job)) this.#putOff(job);
        else this.#due(job, by);
      }
    }
    for (const run of this.#queue.begin(({ job }) => this.#mayBegin(job))) this.#begin(run);
  }

  status(name: string): WorkStatus {
    const server = this.#servers.get(name);
    const all = [...(server?.jobs.values() ?? [])];
    const jobs = all.flatMap((job) => job.status(this.#clock) ?? []);
    return jobs.length === 0 ? {} : { jobs };
  }

  /** Ends all of them; those that go on for ever stay behind. */
  async end(): Promise<void> {
    this.#isEnding = true;
    clearInterval(this.#timer);
    for (const recall of this.#recalls) recall.forget();
    await this.#endRunsOf([...this.#servers.values()].flatMap(({ jobs }) => [...jobs.values()]));
    for (const { process } of this.#queue.running) process?.forget();
  }

  /** Lets a job begin as soon as it may. @throws UsageError */
  request(name: string, request: JobRequest): RunReport[] {
    const server = this.#server(name);
    const meant = [...server.jobs.values()].filter(({ plan }) => isMeant(plan, request));
    if (meant.length === 0) {
      throw new UsageError(`there is nothing to expire of "${name}": it has no "retention"`);
    }
    if (request.job === 'backup' && this.#isPaused(name)) {
      throw new UsageError(`"${name}" is paused: a backup would wait for its WAL`, {
        hint: `walkeep ctl resume -c FILE ${name}`,
      });
    }
    const runs = meant.map((job) => job.run ?? this.#enqueue(job, 'request'));
    this.look();
    return runs.map(reportOfRun);
  }

  /** What became of runs. @throws UsageError if one is not known */
  runs(ids: readonly number[]): RunReport[] {
    const all = [...this.#servers.values()].flatMap(({ jobs }) => [...jobs.values()]);
    return ids.map((id) => {
      const run = all.find((job) => job.run?.id === id)?.run;
      const report = this.#ends.get(id) ?? (run && reportOfRun(run));
      if (report) return report;
      throw new UsageError(`run ${id} is not known: "walkeep serve" began after it, or long ago`);
    });
  }

  /** Ends the run that is on, and all that wait. @throws UsageError */
  cancel(name: string): RunReport[] {
    const runs = [...this.#server(name).jobs.values()].flatMap(({ run }) => run ?? []);
    const reports = runs.map(reportOfRun);
    for (const run of runs) {
      this.#say(run.job, 'info', 'job-cancel', 'is ended, as somebody asked');
      this.#stop(run, 'cancel');
    }
    return reports;
  }

  #server(name: string): Server {
    return serverNamed(this.#servers, name);
  }

  /** Until it is known what was done before, nothing can be noted. */
  #mayBegin(job: Job): boolean {
    const { server } = job.plan.spec;
    return this.#servers.get(server)?.isKnown === true && !this.#mustWait(server, job);
  }

  #mustWait(name: string, { plan }: Job): boolean {
    return plan.spec.job.startsWith('backup_') && this.#isPaused(name);
  }

  #putOff(job: Job): void {
    if (job.isPutOff) return;
    job.isPutOff = true;
    this.#say(job, 'warning', 'job-put-off', 'its time came while the server is paused; it waits');
  }

  #due(job: Job, by: JobCause): void {
    const { run } = job;
    job.deal(this.#clock.wall());
    if (run) {
      const what = run.process ? 'is still running' : 'still waits for its turn';
      this.#say(job, 'warning', 'job-overlap', `its time came while it ${what}; it is not doubled`);
      return;
    }
    if (by === 'missed') {
      this.#say(job, 'warning', 'job-missed', 'its time passed without it; it is begun now');
    }
    this.#enqueue(job, by);
  }

  #enqueue(job: Job, by: JobCause): Run {
    this.#lastId += 1;
    const run: Run = { id: this.#lastId, job, by };
    job.run = run;
    this.#queue.add(run);
    return run;
  }

  #begin(run: Run): void {
    const { job, by } = run;
    const { spec } = job.plan;
    const startedAt = new Date(this.#clock.wall()).toISOString();
    run.startedAt = startedAt;
    const server = this.#servers.get(spec.server) as Server;
    const memory = [...server.jobs.values()].map((one) => one.memory);
    try {
      const start = { kind: 'run' as const, spec, by, startedAt, memory };
      run.process = this.#launch(start, (message) => this.#hear(job, message));
    } catch (e) {
      this.#ended(run, this.#failed((e as Error).message));
      return;
    }
    this.#say(job, 'info', 'job-start', `begins (${spec.place})`);
    void run.process.ended.then(({ how, end }) =>
      this.#ended(run, end ?? this.#failed(`its process ended with ${how}`)),
    );
  }

  #failed(message: string): RunEnd {
    const endedAt = new Date(this.#clock.wall()).toISOString();
    return { outcome: 'failed', endedAt, error: { code: 'WK_PROCESS', message } };
  }

  #hear(job: Job, message: FromJob): void {
    if (message.kind !== 'log') return;
    this.#tell({ ...message.entry, server: job.plan.spec.server, job: job.plan.spec.job });
  }

  #ended(run: Run, reported: RunEnd): void {
    const { job, stopped } = run;
    // Also one that had to be killed.
    const end: RunEnd =
      stopped && reported.outcome === 'failed'
        ? { outcome: 'ended', endedAt: reported.endedAt }
        : reported;
    this.#queue.ended(run);
    job.run = undefined;
    this.#keep(run, end);
    const retry = run.startedAt === undefined ? undefined : job.ended(run, end, this.#clock);
    this.#tellEnd(run, end, retry);
    const redo = end.outcome === 'ended' && stopped === 'end' && run.by !== 'request';
    if (redo && !run.isObsolete && !this.#isEnding && run.by !== 'missed') {
      this.#enqueue(job, 'missed');
    }
    this.look();
  }

  #keep(run: Run, { outcome, code, error }: RunEnd): void {
    this.#ends.set(run.id, {
      ...reportOfRun(run),
      ...{ state: 'ended', outcome },
      ...(code === undefined ? {} : { code }),
      ...(error ? { message: error.message } : {}),
    });
    for (const id of this.#ends.keys()) {
      if (this.#ends.size <= MOST_ENDS) break;
      this.#ends.delete(id);
    }
  }

  #tellEnd({ job }: Run, { outcome, findings, error }: RunEnd, retry: number | undefined): void {
    const { place } = job.plan.spec;
    const again = retry === undefined ? '' : `; it is tried again in ${retry / 60_000} min`;
    const found = findings === undefined ? '' : `, ${findings} findings`;
    const why = error ? `: ${error.message}` : '';
    const level = outcome === 'good' ? 'info' : outcome === 'ended' ? 'warning' : 'error';
    this.#say(
      job,
      level,
      'job-end',
      `${outcome} (${place})${found}${why}${again}`,
      fieldsOf(error ?? {}),
    );
  }

  #stop(run: Run, why: 'end' | 'cancel'): void {
    run.stopped = why;
    if (run.process) {
      run.process.stop(why);
      return;
    }
    this.#queue.remove((one) => one === run);
    this.#ended(run, { outcome: 'ended', endedAt: new Date(this.#clock.wall()).toISOString() });
  }

  async #endRunsOf(jobs: readonly Job[]): Promise<void> {
    const runs = jobs.flatMap(({ run }) => run ?? []);
    for (const run of runs) this.#stop(run, 'end');
    const ended = Promise.all(runs.map(({ process }) => process?.ended));
    let late: NodeJS.Timeout | undefined;
    const patience = new Promise((resolve) => {
      late = setTimeout(resolve, PATIENCE);
    });
    await Promise.race([ended, patience]);
    clearTimeout(late);
  }

  /** Asks directories what was done there; until one answers, nothing is begun for its server. */
  #recall(names: readonly string[]): void {
    if (names.length === 0) return;
    const servers = names.map((server) => {
      const { directory, jobs } = this.#servers.get(server) as Server;
      const scheduled = [...jobs.values()].filter(({ plan }) => plan.schedule !== undefined);
      return { server, directory, fresh: scheduled.map(({ memory }) => memory) };
    });
    const asked = new Map(names.map((name) => [name, this.#servers.get(name)]));
    const settle = (name: string, message?: Extract<FromJob, { kind: 'recalled' }>): void => {
      const server = asked.get(name);
      if (!server || server !== this.#servers.get(name) || server.isKnown) return;
      this.#recalled(name, server, message);
    };
    let process: JobProcess;
    try {
      process = this.#launch({ kind: 'recall', servers }, (message) => {
        if (message.kind === 'recalled') settle(message.server, message);
      });
    } catch (e) {
      const error = reportOf(e);
      for (const server of names) {
        settle(server, { kind: 'recalled', server, memory: undefined, error });
      }
      return;
    }
    this.#recalls.add(process);
    void process.ended.then(() => {
      this.#recalls.delete(process);
      for (const name of names) settle(name);
    });
  }

  #recalled(
    name: string,
    server: Server,
    { memory = [], error }: Partial<Extract<FromJob, { kind: 'recalled' }>> = {},
  ): void {
    server.isKnown = true;
    if (error) {
      const { message, ...more } = error;
      this.#tell({ level: 'warning', event: 'jobs', message, ...more, server: name });
    }
    for (const one of memory) {
      const job = server.jobs.get(keyOf(one));
      if (!job?.remember(one, this.#clock) || job.plan.schedule === undefined || job.run) continue;
      this.#say(
        job,
        'warning',
        'job-missed',
        'its last run was broken off, or had to wait; it is begun again',
      );
      this.#enqueue(job, 'missed');
    }
    this.look();
  }

  #say(
    { plan: { spec } }: Job,
    level: LogEntry['level'],
    event: string,
    message: string,
    more: Partial<LogEntry> = {},
  ): void {
    this.#tell({ level, event, message, server: spec.server, job: spec.job, ...more });
  }
}

/** Makes the jobs of a server these. @returns those whose runs have to end */
function replan(server: Server, plans: readonly JobPlan[], now: number): Job[] {
  const ending: Job[] = [];
  const kept = new Map<string, Job>();
  for (const plan of plans) {
    const key = keyOf(plan.spec);
    const job = server.jobs.get(key);
    if (!job) {
      kept.set(key, new Job(plan, now));
      continue;
    }
    // When it comes next may change while it runs.
    const isSame = job.plan.at === plan.at && isDeepStrictEqual(job.plan.spec, plan.spec);
    if (!isSame && job.run?.process) ending.push(job);
    if (!isDeepStrictEqual(job.plan, plan)) job.replan(plan, now);
    kept.set(key, job);
  }
  const gone = [...server.jobs].flatMap(([key, job]) => (kept.has(key) ? [] : [job]));
  server.jobs = kept;
  return [...ending, ...obsolete(gone)];
}

/** What of these is on is not begun again. */
function obsolete(jobs: readonly Job[]): readonly Job[] {
  for (const { run } of jobs) if (run) run.isObsolete = true;
  return jobs;
}

function isMeant({ spec: { job } }: JobPlan, request: JobRequest): boolean {
  if (request.job === 'verify') return job === (request.full ? 'verify_full' : 'verify_quick');
  if (request.job === 'backup') return job === `backup_${request.type}`;
  return job === request.job;
}

function reportOfRun({ id, job, process }: Run): RunReport {
  const { job: name, place } = job.plan.spec;
  return { id, job: name, place, state: process ? 'running' : 'queued' };
}
