import { setImmediate } from 'node:timers/promises';
import type { Archive } from '../archive/archive.js';
import { InternalError } from '../errors.js';
import { packageFile } from '../package.js';
import { runInThreads } from '../threads.js';
import type { VerifyJob } from './plan.js';
import { type JobReport, runJob } from './stream.js';
import type { WorkerMessage } from './worker.js';

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
  const worker = count > 1 ? packageFile('verify/worker.js') : undefined;
  if (worker) {
    await runInThreads(left, {
      ...{ file: worker, threads: count, atATime, signal },
      answer: (message: WorkerMessage) => {
        switch (message.type) {
          case 'finding':
            report.finding(message.finding);
            return undefined;
          case 'progress':
            report.progress(message.bytes);
            return undefined;
          case 'vanished':
            report.vanished();
            return undefined;
          case 'done':
            return 'done';
          default:
            return new InternalError(message.message, { detail: message.stack ?? '' });
        }
      },
    });
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
