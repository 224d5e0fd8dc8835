import { parentPort, workerData } from 'node:worker_threads';
import { openBackupArea } from '../archive/backups/area.js';
import { BackupReader } from '../archive/backups/reader.js';
import { FrameCache } from '../archive/combine/frames.js';
import type { CombineContext } from '../archive/combine/source.js';
import type { ArchiveOptions } from '../archive/places/open-archive.js';
import type { BackupRecord } from '../base/backup-record.js';
import { type ErrorDetails, WalkeepError } from '../errors.js';
import type { SameFile } from './delta/compare.js';
import { nodeRestoreFileSystem, type Owner } from './file-system.js';
import { type JobContext, type RestoreJob, runJob } from './job.js';

/** What a thread opens the backup with. */
export interface WorkerSetting {
  place: string;
  keys: ArchiveOptions;
  record: BackupRecord;
  owner: Owner | undefined;
  /** Of an incremental backup: all that it is made of, itself too. */
  chain?: (Omit<CombineContext, 'frames'> & { links: ChainPlace[] }) | undefined;
}

interface ChainPlace {
  place: string;
  record: BackupRecord;
}

/** What the thread says: progress, then that a job is done or failed. */
export type WorkerMessage =
  | { type: 'progress'; done: number; same?: SameFile[] | undefined }
  | { type: 'done' }
  | {
      type: 'failed';
      /** Of the class. */
      name: string;
      message: string;
      details: ErrorDetails;
      stack: string | undefined;
    };

/** Opened once: of a store it holds connections. They end with the thread. */
let opened: Promise<JobContext> | undefined;

async function open(): Promise<JobContext> {
  const { place, keys, record, owner, chain } = workerData as WorkerSetting;
  const area = await openBackupArea(place, { systemId: record.systemId });
  const reader = new BackupReader(area, record, keys);
  const context = { reader, fs: nodeRestoreFileSystem, owner };
  if (!chain) return context;
  const { links, ...rest } = chain;
  const readers: BackupReader[] = [];
  for (const link of links) {
    const { systemId } = link.record;
    const other = link.place === place ? area : await openBackupArea(link.place, { systemId });
    readers.push(new BackupReader(other, link.record, keys));
  }
  return { ...context, combine: { ...rest, frames: new FrameCache(readers) } };
}

parentPort?.on('message', async (job: RestoreJob) => {
  const port = parentPort!;
  const say = (message: WorkerMessage) => port.postMessage(message);
  try {
    opened ??= open();
    await runJob(job, await opened, (done, same) => say({ type: 'progress', done, same }));
    say({ type: 'done' });
  } catch (error) {
    const { name, message, stack } = error as Error;
    say({ type: 'failed', name, message, stack, details: detailsOf(error) });
  }
});

/** Those that can be sent: of a cause the text is in the message. */
function detailsOf(error: unknown): ErrorDetails {
  if (!(error instanceof WalkeepError)) return {};
  const { lsn, path, key, expected, actual, hint, detail } = error;
  const all = { lsn, path, key, expected, actual, hint, detail };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}
