import { readlinkSync } from 'node:fs';
import { answerJobs } from '../../threads.js';
import { reportOf } from '../status.js';
import type { LookAnswer, LookJob } from './jobs.js';
import { KnownFiles } from './known-files.js';

/** Directories of which a thread remembers something. */
const MOST_KNOWN = 64;
const known = new Map<string, KnownFiles>();

answerJobs(async (job: LookJob): Promise<LookAnswer> => {
  const before = busyTime();
  const busy = (): number => busyTime() - before;
  try {
    if (job.kind === 'hello') return { busy: 0, ...ownThread() };
    if (job.kind === 'wal') {
      const { lookAtWal } = await import('./wal-look.js');
      const wal = await lookAtWal(job.directory, filesOf(job.directory), job.unless);
      return { busy: busy(), ...(wal ? { wal } : {}) };
    }
    const { lookAtPlace } = await import('./backups-look.js');
    const backups = await lookAtPlace(job);
    return { busy: busy(), backups };
  } catch (e) {
    return { busy: busy(), error: reportOf(e) };
  }
});

/** Milliseconds of cores that this process took: also those of the threads that list directories. */
function busyTime(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/** Where the system tells. */
function ownThread(): { thread?: number } {
  try {
    return { thread: Number(readlinkSync('/proc/thread-self').split('/').at(-1)) };
  } catch {
    return {};
  }
}

function filesOf(directory: string): KnownFiles {
  const found = known.get(directory) ?? new KnownFiles(directory);
  known.delete(directory);
  known.set(directory, found);
  const [oldest] = known.keys();
  if (known.size > MOST_KNOWN && oldest !== undefined) known.delete(oldest);
  return found;
}
