import { Worker, type WorkerOptions } from 'node:worker_threads';
import { InternalError } from './errors.js';

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
