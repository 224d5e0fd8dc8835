import { isStore } from '../archive/places/open-archive.js';
import * as errors from '../errors.js';
import { packageFile } from '../package.js';
import { runInThreads } from '../threads.js';
import { type JobContext, type JobProgress, type RestoreJob, runJob } from './job.js';
import type { WorkerMessage, WorkerSetting } from './worker.js';

export interface PoolOptions {
  threads: number;
  context: JobContext;
  /** Absent: the backup cannot be opened in a thread. */
  setting: WorkerSetting | undefined;
}

/** Megabytes of short-lived objects: more of them make nothing faster, and add up over the threads. */
const YOUNG = 8;

/** Pieces that a thread has under way: while one comes over the network another is unpacked. */
const OVER_NETWORK = 2;

/**
 * Runs jobs in worker threads; in this one where only one is wanted, or the worker's file is missing
 * (in a bundle, or run from the sources). @throws what the first that fails throws
 */
export async function runJobs(
  jobs: Iterable<RestoreJob>,
  { threads, context, setting }: PoolOptions,
  progress: JobProgress,
): Promise<void> {
  context.signal?.throwIfAborted();
  const left = jobs[Symbol.iterator]();
  const isLocal = !setting || !isStore(setting.place) || /^(file:|\/)/i.test(setting.place);
  const atATime = isLocal || context.reader.record.encrypted ? 1 : OVER_NETWORK;
  const file = threads > 1 ? packageFile('restore/worker.js') : undefined;
  if (file && setting) {
    const worker = { workerData: setting, resourceLimits: { maxYoungGenerationSizeMb: YOUNG } };
    const { signal } = context;
    await runInThreads(left, {
      ...{ file, threads, atATime, signal, worker },
      answer: (message: WorkerMessage) => {
        if (message.type === 'progress') progress(message.done, message.same);
        else return message.type === 'done' ? 'done' : revived(message);
        return undefined;
      },
    });
    return;
  }
  let failed = false;
  const work = async (): Promise<void> => {
    for (let next = left.next(); !next.done && !failed; next = left.next()) {
      try {
        await runJob(next.value, context, progress);
      } catch (e) {
        failed = true;
        throw e;
      }
    }
  };
  const all = await Promise.allSettled(Array.from({ length: atATime }, work));
  const bad = all.find((one) => one.status === 'rejected');
  if (bad) throw bad.reason;
}

/** A typed error as the thread threw it. */
function revived({ name, message, details, stack }: WorkerMessage & { type: 'failed' }): Error {
  const made = (errors as unknown as Record<string, unknown>)[name];
  if (typeof made !== 'function') return new errors.InternalError(message, { detail: stack ?? '' });
  return new (made as new (message: string, details: object) => Error)(message, details);
}
