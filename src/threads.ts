import { parentPort, Worker, type WorkerOptions } from 'node:worker_threads';
import { InternalError } from './errors.js';
import { packageFile } from './package.js';

export interface ThreadsOptions<Message> {
  /** What a thread runs: it answers each job with messages, of which one says that it is done. */
  file: string;
  threads: number;
  /** Jobs that a thread has under way at a time. */
  atATime: number;
  signal?: AbortSignal | undefined;
  worker?: WorkerOptions;
  /** Takes a message. `done`: a job is; an error ends all. */
  answer(message: Message): 'done' | Error | undefined;
}

/**
 * Runs jobs in worker threads, which are gone when it has ended.
 * @throws the first error that `answer` gives, what ends a thread, the signal's reason
 */
export async function runInThreads<Job, Message>(
  jobs: Iterator<Job>,
  options: ThreadsOptions<Message>,
): Promise<void> {
  const { file, threads, signal } = options;
  const workers: Worker[] = [];
  let stop = (): void => {};
  try {
    const stopped = new Promise<never>((_, reject) => {
      stop = () => reject(signal?.reason);
      signal?.addEventListener('abort', stop);
    });
    const working = Array.from({ length: threads }, () => {
      // Options of the main program, such as --input-type, are not the thread's.
      const worker = new Worker(file, { execArgv: [], ...options.worker });
      workers.push(worker);
      return workOn(worker, jobs, options);
    });
    await Promise.race([Promise.all(working), stopped]);
  } finally {
    signal?.removeEventListener('abort', stop);
    await Promise.all(workers.map((worker) => worker.terminate()));
  }
}

/** Gives a worker one job after the other. */
function workOn<Job, Message>(
  worker: Worker,
  jobs: Iterator<Job>,
  { atATime, answer }: ThreadsOptions<Message>,
): Promise<void> {
  return new Promise((resolve, reject) => {
    let underWay = 0;
    const next = (): void => {
      const { value, done } = jobs.next();
      if (!done) {
        underWay++;
        worker.postMessage(value);
      } else if (underWay === 0) resolve();
    };
    worker.on('message', (message: Message) => {
      const said = answer(message);
      if (said instanceof Error) reject(said);
      else if (said === 'done') {
        underWay--;
        next();
      }
    });
    worker.on('error', reject);
    worker.on('exit', () => reject(new InternalError('a working thread ended early')));
    for (let i = 0; i < atATime; i++) next();
  });
}

interface Asked<Job> {
  id: number;
  job: Job;
}

/** What an Error loses on its way between threads is told apart. */
type Answered<Answer> = { id: number } & (
  | { answer: Answer }
  | { error: { message: string; code: string | undefined } }
);

interface Waiting<Answer> {
  resolve: (answer: Answer) => void;
  reject: (error: Error) => void;
}

/**
 * A worker thread that takes one job after the other, in their order. It is started with the first and
 * keeps the process running only while it works.
 */
export class WorkingThread<Job, Answer> {
  readonly #module: string;
  readonly #options: WorkerOptions;
  #worker: Worker | undefined;
  #lastId = 0;
  readonly #waiting = new Map<number, Waiting<Answer>>();

  /** @param module of the built package, which calls `answerJobs` */
  constructor(module: string, options: WorkerOptions = {}) {
    this.#module = module;
    this.#options = options;
  }

  /** False where the worker's file is missing: in a bundle of somebody else's, or run from the sources. */
  get isPossible(): boolean {
    return this.#worker !== undefined || packageFile(this.#module) !== undefined;
  }

  /** @throws what the job throws */
  run(job: Job): Promise<Answer> {
    this.#worker ??= this.#start();
    this.#lastId += 1;
    const id = this.#lastId;
    const done = new Promise<Answer>((resolve, reject) =>
      this.#waiting.set(id, { resolve, reject }),
    );
    this.#worker.ref();
    this.#worker.postMessage({ id, job } satisfies Asked<Job>);
    return done;
  }

  /** Ends it: what is under way is rejected. */
  async close(): Promise<void> {
    await this.#worker?.terminate();
  }

  #start(): Worker {
    const waiting = this.#waiting;
    // Options of the main program, such as --input-type, are not the thread's.
    const file = packageFile(this.#module) as string;
    const started = new Worker(file, { execArgv: [], ...this.#options });
    started.on('message', (answered: Answered<Answer>) => {
      const job = waiting.get(answered.id);
      waiting.delete(answered.id);
      if (waiting.size === 0) started.unref();
      if ('error' in answered) {
        job?.reject(Object.assign(new Error(answered.error.message), answered.error));
      } else job?.resolve(answered.answer);
    });
    let cause = new Error('a working thread ended early');
    started.on('error', (e) => {
      cause = e as Error;
    });
    started.on('exit', () => {
      this.#worker = undefined;
      for (const { reject } of waiting.values()) reject(cause);
      waiting.clear();
    });
    return started;
  }
}

/** In the thread: answers each job of a `WorkingThread`. */
export function answerJobs<Job, Answer>(work: (job: Job) => Answer | Promise<Answer>): void {
  const port = parentPort;
  port?.on('message', async ({ id, job }: Asked<Job>) => {
    try {
      const answer = await work(job);
      port.postMessage({ id, answer } satisfies Answered<Answer>);
    } catch (e) {
      const { message, code } = e as NodeJS.ErrnoException;
      port.postMessage({ id, error: { message, code } } satisfies Answered<Answer>);
    }
  });
}
