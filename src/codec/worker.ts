import { answerJobs } from '../threads.js';
import { CODECS } from './codecs.js';
import { compressLz4 } from './lz4/compress.js';
import type { CompressionJob } from './thread.js';

answerJobs(async (job: CompressionJob) => {
  if (job.kind === 'memory') {
    const loaded = await CODECS[job.codec].inThread?.();
    if (!loaded) throw new Error(`${job.codec} is not compressed in a thread`);
    return loaded.compressInto(job.plain, job.into, job.level);
  }
  await compressLz4(job.from, job.to, job.length);
  return job.length;
});
