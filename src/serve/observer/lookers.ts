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
  resolve(answer: LookAnswer): void;
}

interface Thread {
  thread: LookThread;
  running: Set<Looking>;
}

export interface LookersOptions {
  start(): LookThread;
  threads: number;
  /** Looks of one thread at a time. */
  atATime: number;
  /** Milliseconds after which a look holds nobody else up any more. */
  patience: number;
}

/**
 * Threads that look at archives. A disk that hangs stops its thread, in the kernel if need be, where
 * nothing reaches it: then another goes on with all others, and that one is let go when it comes back.
 * So there are never more lost threads than places, each of which is looked at by one at a time.
 */
export class Lookers {
  readonly #options: LookersOptions;
  readonly #threads = new Set<Thread>();
  readonly #waiting: Looking[] = [];
  /** Who looked at what last, and remembers something of it. */
  readonly #before = new Map<string, Thread>();

  constructor(options: LookersOptions) {
    this.#options = options;
  }

  /** @param key of what is looked at; it resolves when the look is over, however long that takes */
  look(key: string, job: LookJob): Promise<LookAnswer> {
    return new Promise((resolve) => {
      this.#waiting.push({ key, job, resolve });
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
    const { threads, atATime, start } = this.#options;
    const isFree = (one: Thread | undefined) => one && one.running.size < atATime;
    const before = this.#before.get(key);
    if (before && this.#threads.has(before) && isFree(before)) return before;
    if (this.#threads.size < threads) {
      const thread = { thread: start(), running: new Set<Looking>() };
      this.#threads.add(thread);
      return thread;
    }
    return [...this.#threads].find(isFree);
  }

  async #run(on: Thread, looking: Looking): Promise<void> {
    const { key, job, resolve } = looking;
    on.running.add(looking);
    this.#before.set(key, on);
    const timer = setTimeout(() => this.#lose(on, looking), this.#options.patience);
    let answer: LookAnswer;
    try {
      answer = await on.thread.run(job);
    } catch (e) {
      answer = { error: reportOf(new InternalError((e as Error).message)), busy: 0 };
      // A thread that ended for want of memory is begun again with its next look.
    }
    clearTimeout(timer);
    on.running.delete(looking);
    if (!this.#threads.has(on) && on.running.size === 0) void on.thread.close();
    resolve(answer);
    this.#next();
  }

  /** Others that are under way there are left to it. */
  #lose(on: Thread, _looking: Looking): void {
    this.#threads.delete(on);
    this.#next();
  }
}
