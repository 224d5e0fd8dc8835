import { parentPort } from 'node:worker_threads';
import { compressLz4, compressLz4Into } from './lz4/compress.js';
import type {
  CompressionAnswer,
  CompressionJob,
  FileJob,
  MemoryJob,
  ThreadedCompression,
} from './thread.js';
import { compressInto as compressZstdInto } from './zstd/zstd.js';

type Into = (plain: Uint8Array, into: Uint8Array, level?: number) => number | Promise<number>;

const INTO: Readonly<Record<ThreadedCompression, Into>> = {
  lz4: compressLz4Into,
  zstd: compressZstdInto,
};

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
  if (job.kind === 'memory') return INTO[job.codec](job.plain, job.into, job.level);
  await compressLz4(job.from, job.to, job.length);
  return job.length;
}
