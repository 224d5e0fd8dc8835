import { fork } from 'node:child_process';
import { InternalError } from '../../errors.js';
import { packageFile } from '../../package.js';
import { reportOf } from '../status.js';
import type { PlanAnswer, PlanRequest } from './messages.js';

/** Processes at a time, and requests that may wait for one. */
const MOST = 2;
const MOST_WAITING = 16;
/** Milliseconds for a plan, from when it is asked for: whoever waits for a page waits no longer. */
const PATIENCE = 25_000;
/** Milliseconds for which an answer is given again, and how many are kept. */
const FRESH = 5000;
const MOST_KEPT = 64;

export interface PlannerLimits {
  most: number;
  waiting: number;
  patience: number;
  fresh: number;
}

/** A process that plans. */
export interface Planning {
  /** Undefined: it ended without one. */
  readonly answer: Promise<PlanAnswer | undefined>;
  kill(): void;
}

export type LaunchPlanning = (request: PlanRequest) => Planning;

/**
 * Has plans made by other processes, each of which ends with its plan: nothing here reads an archive. Of
 * the same request at the same time one is made.
 */
export class Planner {
  readonly #launch: LaunchPlanning;
  readonly #limits: PlannerLimits;
  readonly #running = new Set<Planning>();
  /** Places among `most` that are taken: one that becomes free is handed on to who waits. */
  #taken = 0;
  readonly #waiting: (() => void)[] = [];
  readonly #kept = new Map<string, { at: number; answer: Promise<PlanAnswer> }>();
  #ended = false;

  constructor(launch: LaunchPlanning = launchPlanning, limits: Partial<PlannerLimits> = {}) {
    this.#launch = launch;
    this.#limits = {
      ...{ most: MOST, waiting: MOST_WAITING, patience: PATIENCE, fresh: FRESH },
      ...limits,
    };
  }

  /** @param state what the archive is at: an answer of another is not given again */
  plan(request: PlanRequest, state = ''): Promise<PlanAnswer> {
    const key = JSON.stringify([request, state]);
    const now = performance.now();
    for (const [old, { at }] of this.#kept) {
      if (now - at > this.#limits.fresh || this.#kept.size > MOST_KEPT) this.#kept.delete(old);
    }
    const kept = this.#kept.get(key);
    if (kept) return kept.answer;
    // Until it is there, however long that takes.
    const one = { at: Number.POSITIVE_INFINITY, answer: this.#made(request) };
    this.#kept.set(key, one);
    void one.answer.then(({ state }) => {
      one.at = performance.now();
      // Of what failed another try may know more.
      if (state === 'failed' && this.#kept.get(key) === one) this.#kept.delete(key);
    });
    return one.answer;
  }

  /** Ends all processes; who waits gets no plan. */
  async end(): Promise<void> {
    this.#ended = true;
    for (const planning of this.#running) planning.kill();
    await Promise.all([...this.#running].map(({ answer }) => answer));
  }

  async #made(request: PlanRequest): Promise<PlanAnswer> {
    const asked = performance.now();
    if (this.#taken < this.#limits.most) this.#taken += 1;
    else if (this.#waiting.length < this.#limits.waiting) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    } else return failed('too many plans are asked for', 'Ask again in a while.');
    try {
      if (this.#ended) return failed(ENDING);
      return await this.#run(request, performance.now() - asked);
    } catch (e) {
      return { state: 'failed', error: reportOf(e) };
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#taken -= 1;
    }
  }

  async #run(request: PlanRequest, waited: number): Promise<PlanAnswer> {
    const planning = this.#launch(request);
    this.#running.add(planning);
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      planning.kill();
    }, this.#limits.patience - waited);
    try {
      const answer = await planning.answer;
      if (answer) return answer;
      if (this.#ended) return failed(ENDING);
      if (!isLate) return failed('the process that plans ended without an answer');
      const seconds = Math.round(this.#limits.patience / 1000);
      return failed(
        `the archive did not answer within ${seconds} seconds`,
        'Take fewer places, or ask on a machine that reaches them: walkeep restore --dry-run.',
      );
    } finally {
      clearTimeout(timer);
      this.#running.delete(planning);
    }
  }
}

const ENDING = '"walkeep serve" is being ended';

function failed(message: string, hint?: string): PlanAnswer {
  const error = { code: 'WK_TIMEOUT', message, ...(hint === undefined ? {} : { hint }) };
  return { state: 'failed', error };
}

/** Nothing of a request is in its arguments. */
const launchPlanning: LaunchPlanning = (request) => {
  const file = packageFile('serve/restore/worker.js');
  if (file === undefined) throw new InternalError('the program that plans is missing');
  const child = fork(file, [], {
    execArgv: process.execArgv,
    stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
  });
  const answer = new Promise<PlanAnswer | undefined>((resolve) => {
    let heard: PlanAnswer | undefined;
    child.once('message', (message: PlanAnswer) => {
      heard = message;
    });
    child.once('error', () => {
      // Also of a message that could not be sent: then its end tells.
      if (child.pid === undefined) resolve(undefined);
    });
    // Behind the last message, which may come after the process is gone.
    child.once('close', () => resolve(heard));
  });
  if (child.pid !== undefined) child.send(request, () => {});
  return { answer, kill: () => void child.kill('SIGKILL') };
};
