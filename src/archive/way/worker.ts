import { answerJobs } from '../../threads.js';
import type { RecordKinds } from '../../wal/record.js';
import type { Archive } from '../archive.js';
import { openArchive } from '../places/open-archive.js';
import { type RunJob, readRun } from './run.js';

/** Both are the same for all jobs of a thread. Of a store it holds connections, which end with it. */
let opened: Promise<Archive> | undefined;
let known: RecordKinds | undefined;

answerJobs(async (job: RunJob) => {
  opened ??= openArchive(job.place, job.keys);
  known ??= job.kinds;
  return readRun(await opened, { ...job, kinds: known }, { readAhead: false });
});
