import * as z from 'zod';
import { StorageError } from '../../errors.js';
import { storageError, writeFileDurably } from '../../files/durable.js';
import { readRegular } from '../../files/regular-file.js';
import type { JobCause, JobEnd, JobName } from '../status.js';
import { memoryFile } from './plan.js';

/** Version of the file. */
const FORMAT = 1;
/** It holds a few jobs; a longer one is none of ours. */
const LARGEST = 4 * 1024 * 1024;

/** What is remembered of a job, over the end of the program. Times are ISO 8601. */
export interface JobMemory {
  job: JobName;
  place: string;
  /** Up to here its times were looked at. */
  seen: string;
  /** Some of them, for which something was done: the clock may have been put back. */
  dealt: string[];
  /** The run that is on, or waits, or did so as the program ended. */
  running?: { startedAt: string; by: JobCause };
  last?: JobEnd;
  /** As of `JobStatus`. */
  verdict?: JobEnd;
  lastSuccess?: string;
}

const time = z.string().refine((text) => !Number.isNaN(Date.parse(text)));
const job = z.enum([
  ...(['verify_quick', 'verify_full', 'expire', 'rehearse'] as const),
  ...(['backup_full', 'backup_differential', 'backup_incremental'] as const),
]);
const by = z.enum(['schedule', 'missed', 'retry', 'request']);
const error = z.object({
  ...{ code: z.string(), message: z.string() },
  ...{ hint: z.string().optional(), detail: z.string().optional() },
});
const end = z.object({
  ...{ startedAt: time, endedAt: time, by },
  outcome: z.enum(['good', 'bad', 'failed', 'ended']),
  ...{ findings: z.number().optional(), error: error.optional() },
});
const FILE = z.object({
  version: z.literal(FORMAT),
  jobs: z.array(
    z.object({
      ...{ job, place: z.string(), seen: time, dealt: z.array(time) },
      running: z.object({ startedAt: time, by }).optional(),
      ...{ last: end.optional(), verdict: end.optional() },
      lastSuccess: time.optional(),
    }),
  ),
});

/** Undefined: nothing was noted yet. @throws StorageError if it cannot be read, or is none of ours */
export async function readMemory(directory: string): Promise<JobMemory[] | undefined> {
  const path = memoryFile(directory);
  let text: string;
  try {
    const bytes = await readRegular(path, { follow: false });
    if (bytes.length > LARGEST) throw new StorageError(`"${path}" is too long`, { path });
    text = bytes.toString('utf8');
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw storageError('read file', path, e);
  }
  try {
    return FILE.parse(JSON.parse(text)).jobs as JobMemory[];
  } catch (cause) {
    throw new StorageError(`"${path}" does not say when jobs ran, in a form that is known here`, {
      ...{ path, cause },
      hint: 'It is written anew; what was missed before is not caught up.',
    });
  }
}

/** @throws StorageError */
export async function writeMemory(directory: string, jobs: readonly JobMemory[]): Promise<void> {
  await writeFileDurably(
    memoryFile(directory),
    `${JSON.stringify({ version: FORMAT, jobs }, null, 1)}\n`,
  );
}
