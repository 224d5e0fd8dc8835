import { existsSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { InternalError } from '../errors.js';
import type { VerifyJob } from './plan.js';
import { type JobReport, runJob } from './stream.js';
import type { WorkerMessage } from './worker.js';

const WORKER = new URL('./worker.js', import.meta.url);

/**
 * Runs jobs on `threads` worker threads. With one, or where the worker's file is missing (in a
 * bundle, or run from the sources), this thread runs them.
 * @throws the signal's reason when it is aborted
 */
export async function runJobs(
  jobs: readonly VerifyJob[],
  threads: number,
  report: JobReport,
  signal?: AbortSignal,
): Promise<void> {
  signal?.throwIfAborted();
  const count = Math.min(threads, jobs.length);
  if (count > 1 && existsSync(fileURLToPath(WORKER))) {
    await inThreads(jobs, count, report, signal);
    return;
  }
  // Between two segments a signal or a timer is heard.
  const between = async (): Promise<void> => {
    await setImmediate();
    signal?.throwIfAborted();
  };
  for (const job of jobs) await runJob(job, report, { between, readAhead: true });
}

async function inThreads(
  jobs: readonly VerifyJob[],
  count: number,
  report: JobReport,
  signal: AbortSignal | undefined,
): Promise<void> {
  const left = jobs.values();
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
      return workOn(worker, left, report);
    });
    await Promise.race([Promise.all(working), stopped]);
  } finally {
    signal?.removeEventListener('abort', stop);
    await Promise.all(workers.map((worker) => worker.terminate()));
  }
}

/** Gives a worker one job after the other. */
function workOn(worker: Worker, jobs: Iterator<VerifyJob>, report: JobReport): Promise<void> {
  return new Promise((resolve, reject) => {
    const next = (): void => {
      const { value, done } = jobs.next();
      if (done) resolve();
      else worker.postMessage(value);
    };
    worker.on('message', (message: WorkerMessage) => {
      if (message.type === 'finding') report.finding(message.finding);
      else if (message.type === 'progress') report.progress(message.bytes);
      else if (message.type === 'vanished') report.vanished();
      else if (message.type === 'done') next();
      else reject(new InternalError(message.message, { detail: message.stack ?? '' }));
    });
    worker.on('error', reject);
    worker.on('exit', () => reject(new InternalError('a checking thread ended early')));
    next();
  });
}
