import { parentPort } from 'node:worker_threads';
import { CODECS } from './codecs.js';
import { compressLz4 } from './lz4/compress.js';
import type { CompressionAnswer, CompressionJob, FileJob, MemoryJob } from './thread.js';

parentPort?.on('message', async ({ id, ...job }: CompressionJob) => {
  const answer: CompressionAnswer = { id, length: 0 };
  try {
    answer.length = await done(job);
  } catch (e) {
    const { message, code } = e as NodeJS.ErrnoException;
    answer.error = { message, code };
  }
  parentPort?.postMessage(answer);
});

async function done(job: FileJob | MemoryJob): Promise<number> {
  if (job.kind === 'memory') {
    const loaded = await CODECS[job.codec].inThread?.();
    if (!loaded) throw new Error(`${job.codec} is not compressed in a thread`);
    return loaded.compressInto(job.plain, job.into, job.level);
  }
  await compressLz4(job.from, job.to, job.length);
  return job.length;
}
