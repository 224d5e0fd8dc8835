import { type JobCause, type JobEnd, type JobStatus, verdictAfter, verdictOf } from '../status.js';
import type { JobProcess } from './launch.js';
import type { JobMemory } from './memory.js';
import type { RunEnd } from './messages.js';
import type { JobPlan } from './plan.js';
import { dealtWith, looked, Schedule, type Watched } from './schedule.js';

/** Milliseconds after which a time is one that was missed. */
const LATE = 60_000;
/** Milliseconds before a backup that failed is tried again, doubling. */
const FIRST_RETRY = 600_000;
/** Times that are noted in the directory. */
const NOTED = 100;

/** Of the wall clock, and of one that nobody sets. */
export interface Clock {
  wall(): number;
  steady(): number;
}

/** A run that waits, or is on. */
export interface Run {
  readonly id: number;
  readonly job: Job;
  readonly by: JobCause;
  startedAt?: string;
  process?: JobProcess;
  /** It is being ended. */
  stopped?: 'end' | 'cancel';
  /** Of a plan that is no more. */
  isObsolete?: true;
}

const iso = (ms: number): string => new Date(ms).toISOString();

/** A job of a server: its times, what became of it, and its run, of which there is one at most. */
export class Job {
  plan: JobPlan;
  run: Run | undefined;
  /** It was told that it has to wait. */
  isPutOff = false;
  #schedule: Schedule | undefined;
  #watched: Watched;
  #next: number | undefined;
  /** It was not looked at since the program began. */
  #isFirst = true;
  #last: JobEnd | undefined;
  #verdict: JobEnd | undefined;
  #lastSuccess: string | undefined;
  #failures = 0;
  /** Of the steady clock. */
  #retryAt: number | undefined;

  constructor(plan: JobPlan, now: number) {
    this.plan = plan;
    this.#watched = { seen: now, dealt: [] };
    this.replan(plan, now);
  }

  /** Another plan of the same job at the same place. */
  replan(plan: JobPlan, now: number): void {
    this.plan = plan;
    this.#schedule = plan.schedule === undefined ? undefined : new Schedule(plan.schedule);
    this.#next = this.#schedule?.after(now);
    if (!this.#schedule) this.#retryAt = undefined;
  }

  /**
   * What was noted of it before this program began.
   * @returns whether a run was broken off, or waited, that has to be done again
   */
  remember(memory: JobMemory, clock: Clock): boolean {
    const { seen, dealt, running, last, lastSuccess } = memory;
    this.#watched = { seen: Date.parse(seen), dealt: dealt.map((text) => Date.parse(text)) };
    this.#last = last;
    this.#verdict = verdictOf(memory);
    this.#lastSuccess = lastSuccess;
    if (last?.outcome === 'failed' && last.by !== 'request') this.#planRetry(clock);
    // One that was caught up, and ended this program perhaps, is not begun for ever.
    return running?.by === 'schedule' || running?.by === 'retry';
  }

  /** What is to be noted of it. */
  get memory(): JobMemory {
    const { seen, dealt } = this.#watched;
    return {
      ...{ job: this.plan.spec.job, place: this.plan.spec.place, seen: iso(seen) },
      dealt: dealt.slice(-NOTED).map(iso),
      ...this.#waits,
      ...this.#known,
    };
  }

  /** Its time is dealt with, and it has not begun: whoever begins after this program has to know. */
  get #waits(): Pick<JobMemory, 'running'> {
    const { run } = this;
    if (run === undefined || run.process || run.by === 'request') return {};
    return { running: { startedAt: iso(this.#watched.seen), by: 'schedule' } };
  }

  /** What became of it. */
  get #known(): Pick<JobStatus, 'last' | 'verdict' | 'lastSuccess'> {
    const [last, verdict] = [this.#last, this.#verdict];
    return {
      ...(last ? { last } : {}),
      ...(verdict && verdict !== last ? { verdict } : {}),
      ...(this.#lastSuccess === undefined ? {} : { lastSuccess: this.#lastSuccess }),
    };
  }

  /** The cause for which it has to be begun now, by its schedule or since it failed. */
  cause({ wall, steady }: Clock): JobCause | undefined {
    const now = wall();
    const due = this.#due(now);
    if (due !== undefined) {
      return this.#isFirst || now - due > LATE ? 'missed' : 'schedule';
    }
    this.#watched = looked(this.#watched, now);
    this.#isFirst = false;
    return this.#retryAt !== undefined && steady() >= this.#retryAt ? 'retry' : undefined;
  }

  #due(now: number): number | undefined {
    const { seen } = this.#watched;
    const isQuiet = this.#next === undefined || (now < this.#next && now >= seen);
    if (!this.#schedule || (isQuiet && !this.#isFirst && !this.isPutOff)) return undefined;
    this.#next = this.#schedule.after(now);
    return this.#schedule.due(this.#watched, now);
  }

  /** Something was done about what made it due. */
  deal(now: number): void {
    const due = this.#schedule?.due(this.#watched, now);
    this.#watched =
      due === undefined ? looked(this.#watched, now) : dealtWith(this.#watched, due, now);
    this.#next = this.#schedule?.after(now);
    this.#isFirst = false;
    this.isPutOff = false;
    this.#retryAt = undefined;
  }

  /** @returns milliseconds after which it is tried again, if it is */
  ended({ by, startedAt = '' }: Run, end: RunEnd, clock: Clock): number | undefined {
    const { outcome, endedAt, findings, error } = end;
    this.#last = {
      ...{ startedAt, endedAt, outcome, by },
      ...(findings === undefined ? {} : { findings }),
      ...(error ? { error } : {}),
    };
    this.#verdict = verdictAfter(this.#verdict, this.#last);
    if (outcome === 'good') {
      this.#lastSuccess = endedAt;
      this.#retryAt = undefined;
    }
    if (outcome !== 'failed') this.#failures = 0;
    else if (by !== 'request') return this.#planRetry(clock);
    return undefined;
  }

  #planRetry({ wall, steady }: Clock): number | undefined {
    this.#retryAt = undefined;
    if (!this.#schedule || !this.plan.spec.job.startsWith('backup_')) return undefined;
    const wait = FIRST_RETRY * 2 ** Math.min(this.#failures, 20);
    this.#failures += 1;
    const next = this.#schedule.after(wall());
    if (next !== undefined && next <= wall() + wait) {
      this.#failures = 0;
      return undefined;
    }
    this.#retryAt = steady() + wait;
    return wait;
  }

  /** Undefined: nobody has asked for it, and it has no times. */
  status({ wall, steady }: Clock): JobStatus | undefined {
    const { plan, run } = this;
    if (!this.#schedule && !run && !this.#last) return undefined;
    const retry = this.#retryAt === undefined ? undefined : wall() + this.#retryAt - steady();
    const next = Math.min(this.#next ?? Infinity, retry ?? Infinity);
    return {
      ...{ job: plan.spec.job, place: plan.spec.place },
      state: run === undefined ? 'waiting' : run.process ? 'running' : 'queued',
      ...(plan.schedule === undefined ? {} : { schedule: plan.schedule }),
      ...(next === Infinity ? {} : { next: iso(next) }),
      ...(run?.startedAt === undefined ? {} : { startedAt: run.startedAt }),
      ...(run?.process?.pid === undefined ? {} : { pid: run.process.pid }),
      ...this.#known,
    };
  }
}
