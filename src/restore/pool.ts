import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { isStore } from '../archive/places/open-archive.js';
import * as errors from '../errors.js';
import { type JobContext, type RestoreJob, runJob } from './job.js';
import type { WorkerMessage, WorkerSetting } from './worker.js';

const WORKER = new URL('./worker.js', import.meta.url);

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
  progress: (done: number) => void,
): Promise<void> {
  context.signal?.throwIfAborted();
  const left = jobs[Symbol.iterator]();
  const isLocal = !setting || !isStore(setting.place) || /^(file:|\/)/i.test(setting.place);
  const atATime = isLocal || context.reader.record.encrypted ? 1 : OVER_NETWORK;
  if (threads > 1 && setting && existsSync(fileURLToPath(WORKER))) {
    await inThreads(left, { threads, atATime, setting, signal: context.signal }, progress);
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

interface ThreadOptions {
  threads: number;
  atATime: number;
  setting: WorkerSetting;
  signal: AbortSignal | undefined;
}

async function inThreads(
  left: Iterator<RestoreJob>,
  { threads, atATime, setting, signal }: ThreadOptions,
  progress: (done: number) => void,
): Promise<void> {
  const workers: Worker[] = [];
  let stop = (): void => {};
  try {
    const stopped = new Promise<never>((_, reject) => {
      stop = () => reject(signal?.reason);
      signal?.addEventListener('abort', stop);
    });
    const working = Array.from({ length: threads }, () => {
      // Options of the main program, such as --input-type, are not the thread's.
      const resourceLimits = { maxYoungGenerationSizeMb: YOUNG };
      const worker = new Worker(WORKER, { execArgv: [], workerData: setting, resourceLimits });
      workers.push(worker);
      return workOn(worker, left, atATime, progress);
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
  jobs: Iterator<RestoreJob>,
  atATime: number,
  progress: (done: number) => void,
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
      if (message.type === 'progress') progress(message.done);
      else if (message.type === 'done') {
        underWay--;
        next();
      } else reject(revived(message));
    });
    worker.on('error', reject);
    worker.on('exit', () => reject(new errors.InternalError('a restoring thread ended early')));
    for (let i = 0; i < atATime; i++) next();
  });
}

/** A typed error as the thread threw it. */
function revived({ name, message, details, stack }: WorkerMessage & { type: 'failed' }): Error {
  const made = (errors as unknown as Record<string, unknown>)[name];
  if (typeof made !== 'function') return new errors.InternalError(message, { detail: stack ?? '' });
  return new (made as new (message: string, details: object) => Error)(message, details);
}
