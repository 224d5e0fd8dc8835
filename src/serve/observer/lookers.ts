import { readFileSync } from 'node:fs';
import { InternalError } from '../../errors.js';
import { reportOf } from '../status.js';
import type { LookAnswer, LookJob } from './jobs.js';

/** A thread that looks. */
export interface LookThread {
  run(job: LookJob): Promise<LookAnswer>;
  close(): Promise<void>;
}

interface Looking {
  key: string;
  job: LookJob;
  isUrgent: boolean;
  resolve(answer: LookAnswer): void;
}

interface Thread {
  thread: LookThread;
  running: Set<Looking>;
  /** Its number; not known on all systems. */
  id: number | undefined;
}

export interface LookersOptions {
  start(): LookThread;
  threads: number;
  /** With those that are held by a disk. */
  most: number;
  /** Looks of one thread at a time. */
  atATime: number;
  /** Milliseconds after which a look that only waits holds nobody else up any more. */
  patience: number;
  /** Milliseconds for which a thread had a core or waited for one; undefined: not known. */
  activity?(thread: number): number | undefined;
}

/** Part of the time that a thread must have worked not to be taken for one that waits. */
const WORKS = 0.1;

/**
 * Threads that look at archives. A disk that hangs stops its thread, in the kernel if need be, where
 * nothing reaches it: then another goes on with all others, and that one is let go when it comes back.
 * A thread that works, or would if it had a core, is waited for: more of them would help nobody.
 */
export class Lookers {
  readonly #options: LookersOptions;
  /** Those that are given looks. */
  readonly #threads = new Set<Thread>();
  #lost = 0;
  readonly #waiting: Looking[] = [];
  /** Who looked at what last, and remembers something of it. */
  readonly #before = new Map<string, Thread>();

  constructor(options: LookersOptions) {
    this.#options = options;
  }

  /**
   * Resolves when the look is over, however long that takes.
   * @param key of what is looked at
   * @param isUrgent it comes before all that are not
   */
  look(key: string, job: LookJob, isUrgent = false): Promise<LookAnswer> {
    return new Promise((resolve) => {
      const at = isUrgent ? this.#waiting.findIndex((one) => !one.isUrgent) : -1;
      const place = at < 0 ? this.#waiting.length : at;
      this.#waiting.splice(place, 0, { key, job, isUrgent, resolve });
      this.#next();
    });
  }

  #next(): void {
    for (let looking = this.#waiting[0]; looking; looking = this.#waiting[0]) {
      const thread = this.#freeFor(looking.key);
      if (!thread) return;
      this.#waiting.shift();
      void this.#run(thread, looking);
    }
  }

  #freeFor(key: string): Thread | undefined {
    const { threads, most, atATime } = this.#options;
    const isFree = (one: Thread) => one.running.size < atATime;
    const before = this.#before.get(key);
    if (before && this.#threads.has(before) && isFree(before)) return before;
    const free = [...this.#threads].find(isFree);
    if (free) return free;
    const mayBegin = this.#threads.size < threads && this.#threads.size + this.#lost < most;
    return mayBegin ? this.#begin() : undefined;
  }

  #begin(): Thread {
    const thread: Thread = { thread: this.#options.start(), running: new Set(), id: undefined };
    this.#threads.add(thread);
    const known = ({ thread: id }: LookAnswer): void => {
      thread.id = id;
    };
    thread.thread.run({ kind: 'hello' }).then(known, () => {});
    return thread;
  }

  async #run(on: Thread, looking: Looking): Promise<void> {
    const { key, job, resolve } = looking;
    on.running.add(looking);
    this.#before.set(key, on);
    const watch = this.#watch(on);
    let answer: LookAnswer;
    try {
      answer = await on.thread.run(job);
    } catch (e) {
      // One that ended for want of memory is begun again with its next look.
      answer = { error: reportOf(new InternalError((e as Error).message)), busy: 0 };
    }
    clearInterval(watch);
    on.running.delete(looking);
    if (!this.#threads.has(on) && on.running.size === 0) {
      this.#lost -= 1;
      void on.thread.close();
    }
    resolve(answer);
    this.#next();
  }

  /** Looks whether a thread works, while it has something to do. */
  #watch(on: Thread): NodeJS.Timeout {
    const { patience, activity = activityOf } = this.#options;
    const now = () => (on.id === undefined ? undefined : activity(on.id));
    let before = now();
    return setInterval(() => {
      const after = now();
      const worked = after === undefined ? 0 : after - (before ?? 0);
      before = after;
      if (worked < WORKS * patience) this.#lose(on);
    }, patience);
  }

  /** What else is under way there is left to it. */
  #lose(on: Thread): void {
    if (!this.#threads.delete(on)) return;
    this.#lost += 1;
    this.#next();
  }
}

/** Of a thread of this process (Linux, schedstat: time on a core, and time waiting for one). */
function activityOf(thread: number): number | undefined {
  try {
    const text = readFileSync(`/proc/self/task/${thread}/schedstat`, 'utf8');
    const [onCore = 0, waiting = 0] = text.split(' ').map(Number);
    return (onCore + waiting) / 1e6;
  } catch {
    return undefined;
  }
}
