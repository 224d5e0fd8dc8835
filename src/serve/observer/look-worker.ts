import { performance } from 'node:perf_hooks';
import { answerJobs } from '../../threads.js';
import { reportOf } from '../status.js';
import type { LookAnswer, LookJob } from './jobs.js';
import { KnownFiles } from './known-files.js';

/** Directories of which a thread remembers something. */
const MOST_KNOWN = 64;
const known = new Map<string, KnownFiles>();

answerJobs(async (job: LookJob): Promise<LookAnswer> => {
  const before = performance.eventLoopUtilization();
  const busy = (): number => performance.eventLoopUtilization(before).active;
  try {
    if (job.kind === 'wal') {
      const { lookAtWal } = await import('./wal-look.js');
      const wal = await lookAtWal(job.directory, filesOf(job.directory));
      return { wal, busy: busy() };
    }
    const { lookAtPlace } = await import('./backups-look.js');
    const backups = await lookAtPlace(job);
    return { backups, busy: busy() };
  } catch (e) {
    return { error: reportOf(e), busy: busy() };
  }
});

function filesOf(directory: string): KnownFiles {
  const found = known.get(directory) ?? new KnownFiles(directory);
  known.delete(directory);
  known.set(directory, found);
  const [oldest] = known.keys();
  if (known.size > MOST_KNOWN && oldest !== undefined) known.delete(oldest);
  return found;
}
