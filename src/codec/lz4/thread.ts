import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { type FileSystem, nodeFileSystem } from '../../files/file-system.js';
import { compressLz4 } from './compress.js';
import type { Lz4Answer, Lz4Job } from './worker.js';

const WORKER = new URL('./worker.js', import.meta.url);

interface Waiting {
  resolve: () => void;
  reject: (error: Error) => void;
}

/** One thread for the process: its code is optimized once, not anew for each segment. */
let worker: Worker | undefined;
let lastId = 0;
const waiting = new Map<number, Waiting>();

/**
 * `compressLz4` in a worker thread, which keeps the process running only while it works. Where the
 * worker's file is missing (in a bundle, or run from the sources) this thread does it.
 * @throws as `compressLz4`
 */
export async function compressLz4InThread(
  from: number,
  to: number,
  length: number,
  fs: FileSystem,
): Promise<void> {
  // The thread knows descriptors of the system only.
  const here = fs !== nodeFileSystem || (!worker && !existsSync(fileURLToPath(WORKER)));
  if (here) return compressLz4(from, to, length, fs);
  worker ??= startWorker();
  const job: Lz4Job = { id: ++lastId, from, to, length };
  const done = new Promise<void>((resolve, reject) => waiting.set(job.id, { resolve, reject }));
  worker.ref();
  worker.postMessage(job);
  return done;
}

function startWorker(): Worker {
  // Options of the main program, such as --input-type, are not the thread's.
  const started = new Worker(WORKER, { execArgv: [] });
  started.on('message', ({ id, error }: Lz4Answer) => {
    const job = waiting.get(id);
    waiting.delete(id);
    if (waiting.size === 0) started.unref();
    if (error) job?.reject(Object.assign(new Error(error.message), error));
    else job?.resolve();
  });
  let cause = new Error('the compressing thread ended early');
  started.on('error', (e) => {
    cause = e as Error;
  });
  started.on('exit', () => {
    worker = undefined;
    for (const { reject } of waiting.values()) reject(cause);
    waiting.clear();
  });
  return started;
}
