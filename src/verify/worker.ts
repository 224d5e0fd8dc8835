import { parentPort } from 'node:worker_threads';
import type { Archive } from '../archive/archive.js';
import type { Finding } from '../archive/findings.js';
import { openArchive } from '../archive/places/open-archive.js';
import type { VerifyJob } from './plan.js';
import { runJob } from './stream.js';

/** What the thread says: findings, bytes and segments that vanished as they come, then that the job is done or failed. */
export type WorkerMessage =
  | { type: 'finding'; finding: Finding }
  | { type: 'progress'; bytes: number }
  | { type: 'vanished' }
  | { type: 'done' }
  | { type: 'failed'; message: string; stack: string | undefined };

/** Bytes after which progress is told. */
const STEP = 4 * 1024 * 1024;

/** Opened once: of a store it holds connections. They end with the thread. */
let opened: Promise<Archive> | undefined;

function archiveOf({ place, keys, systemId }: VerifyJob): Promise<Archive> {
  opened ??= openArchive(place, { ...keys, systemId });
  return opened;
}

parentPort?.on('message', async (job: VerifyJob) => {
  const port = parentPort!;
  const say = (message: WorkerMessage) => port.postMessage(message);
  let bytes = 0;
  try {
    const archive = await archiveOf(job);
    await runJob(job, archive, {
      finding: (finding) => say({ type: 'finding', finding }),
      progress: (more) => {
        bytes += more;
        if (bytes < STEP) return;
        say({ type: 'progress', bytes });
        bytes = 0;
      },
      vanished: () => say({ type: 'vanished' }),
    });
    say({ type: 'progress', bytes });
    say({ type: 'done' });
  } catch (error) {
    const { message, stack } = error as Error;
    say({ type: 'failed', message, stack });
  }
});
