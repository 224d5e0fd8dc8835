import { endOf, forkProgram, sendTo } from '../fork.js';
import type { FromJob, RunEnd, ToJob } from './messages.js';
import { killGroup } from './program.js';

/** Milliseconds for a process to end all that it began, its hook after the job being one. */
const STOP_GRACE = 45_000;
/** Threads of a process that waits for many disks, of which some may hang. */
const MOST_THREADS = 128;

export type JobStart = Extract<ToJob, { kind: 'run' | 'recall' }>;

/** A running process of jobs. */
export interface JobProcess {
  readonly pid: number | undefined;
  /** How it ended; `end` of a run as it said itself. */
  readonly ended: Promise<{ how: string; end?: RunEnd }>;
  /** Asks it to end; one that does not is killed after a while. */
  stop(why: 'end' | 'cancel'): void;
  /** Nobody waits for it any more. */
  forget(): void;
}

export type LaunchJob = (start: JobStart, hear: (message: FromJob) => void) => JobProcess;

export const launchJob: LaunchJob = (start, hear) => {
  const threads = start.kind === 'recall' ? Math.min(start.servers.length + 4, MOST_THREADS) : 0;
  const child = forkProgram('serve/jobs/worker.js', {
    env: threads > 0 ? { UV_THREADPOOL_SIZE: `${threads}` } : {},
    isQuiet: true,
  });
  let end: RunEnd | undefined;
  let group: number | undefined;
  let isReady = false;
  let grace: NodeJS.Timeout | undefined;
  const send = (message: ToJob): void => sendTo(child, message);
  child.on('message', (message: FromJob) => {
    if (message.kind === 'ready') {
      isReady = true;
      send(start);
    }
    if (message.kind === 'end') end = message.end;
    if (message.kind === 'group') group = message.pid;
    hear(message);
  });
  const ended = endOf(child).then((how) => {
    clearTimeout(grace);
    // It could not do this itself.
    if (group !== undefined) killGroup(group, 'SIGKILL');
    return { how, ...(end ? { end } : {}) };
  });
  return {
    pid: child.pid,
    ended,
    stop(why) {
      // It has nothing yet, and may not listen.
      if (!isReady) child.kill('SIGKILL');
      send({ kind: 'stop', why });
      grace ??= setTimeout(() => child.kill('SIGKILL'), STOP_GRACE);
    },
    forget() {
      clearTimeout(grace);
      if (child.connected) child.disconnect();
      child.kill('SIGKILL');
      child.unref();
    },
  };
};
