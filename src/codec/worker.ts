import { parentPort } from 'node:worker_threads';
import { compressLz4 } from './compress.js';

/** What the thread is asked. File descriptors belong to the process, not to one of its threads. */
export interface Lz4Job {
  id: number;
  from: number;
  to: number;
  length: number;
}

/** What it answers: nothing more, or what an Error loses on its way between threads. */
export interface Lz4Answer {
  id: number;
  error?: { message: string; code: string | undefined };
}

parentPort?.on('message', async ({ id, from, to, length }: Lz4Job) => {
  const answer: Lz4Answer = { id };
  try {
    await compressLz4(from, to, length);
  } catch (e) {
    const { message, code } = e as NodeJS.ErrnoException;
    answer.error = { message, code };
  }
  parentPort?.postMessage(answer);
});
