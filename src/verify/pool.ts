import { existsSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import type { Archive } from '../archive/archive.js';
import { InternalError } from '../errors.js';
import type { VerifyJob } from './plan.js';
import { type JobReport, runJob } from './stream.js';
import type { WorkerMessage } from './worker.js';

const WORKER = new URL('./worker.js', import.meta.url);

/** Where jobs are run. */
export interface PoolOptions {
  archive: Archive;
  threads: number;
  signal?: AbortSignal | undefined;
}

/** Jobs that a thread has under way at a time where their WAL comes over a network. */
const AT_A_TIME = 4;

/**
 * Runs jobs on worker threads. With one, or where the worker's file is missing (in a bundle, or run
 * from the sources), this thread runs them.
 * @throws the signal's reason when it is aborted
 */
export async function runJobs(
  jobs: readonly VerifyJob[],
  { archive, threads, signal }: PoolOptions,
  report: JobReport,
): Promise<void> {
  signal?.throwIfAborted();
  const count = Math.min(threads, jobs.length);
  const left = jobs.values();
  const atATime = archive.isDirectory ? 1 : AT_A_TIME;
  if (count > 1 && existsSync(fileURLToPath(WORKER))) {
    await inThreads(left, { count, atATime, signal }, report);
    return;
  }
  // Between two segments a signal or a timer is heard.
  const between = async (): Promise<void> => {
    await setImmediate();
    signal?.throwIfAborted();
  };
  const work = async (): Promise<void> => {
    for (const job of left) await runJob(job, archive, report, { between, readAhead: true });
  };
  await Promise.all(Array.from({ length: atATime }, work));
}

interface ThreadOptions {
  count: number;
  atATime: number;
  signal: AbortSignal | undefined;
}

async function inThreads(
  left: Iterator<VerifyJob>,
  { count, atATime, signal }: ThreadOptions,
  report: JobReport,
): Promise<void> {
  const workers: Worker[] = [];
  let stop = (): void => {};
  try {
    const stopped = new Promise<never>((_, reject) => {
      stop = () => reject(signal?.reason);
      signal?.addEventListener('abort', stop);
    });
    const working = Array.from({ length: count }, () => {
      // Options of the main program, such as --input-type, are not the thread's.
      const worker = new Worker(WORKER, { execArgv: [] });
      workers.push(worker);
      return workOn(worker, left, atATime, report);
    });
    await Promise.race([Promise.all(working), stopped]);
  } finally {
    signal?.removeEventListener('abort', stop);
    await Promise.all(workers.map((worker) => worker.terminate()));
  }
}

/** Gives a worker one job after the other. */
function workOn(
  worker: Worker,
  jobs: Iterator<VerifyJob>,
  atATime: number,
  report: JobReport,
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
    worker.on('message', (message: WorkerMessage) => {
      if (message.type === 'finding') report.finding(message.finding);
      else if (message.type === 'progress') report.progress(message.bytes);
      else if (message.type === 'vanished') report.vanished();
      else if (message.type === 'done') {
        underWay--;
        next();
      } else reject(new InternalError(message.message, { detail: message.stack ?? '' }));
    });
    worker.on('error', reject);
    worker.on('exit', () => reject(new InternalError('a checking thread ended early')));
    for (let i = 0; i < atATime; i++) next();
  });
}
