import { parentPort, workerData } from 'node:worker_threads';
import { compressLz4 } from './lz4-compress.js';

/** What `compressInWorker` hands over; file descriptors belong to the process, not to a thread. */
export interface Lz4Job {
  from: number;
  to: number;
  length: number;
}

/** The worker's only message: nothing, or what an Error loses on its way between threads. */
export interface Lz4Answer {
  error?: { message: string; code: string | undefined };
}

const { from, to, length } = workerData as Lz4Job;
let answer: Lz4Answer = {};
try {
  await compressLz4(from, to, length);
} catch (e) {
  const { message, code } = e as NodeJS.ErrnoException;
  answer = { error: { message, code } };
}
parentPort?.postMessage(answer);
