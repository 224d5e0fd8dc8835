import { fork } from 'node:child_process';
import { InternalError } from '../../errors.js';
import { packageFile } from '../../package.js';
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
  const file = packageFile('serve/jobs/worker.js');
  if (file === undefined) throw new InternalError('the program of jobs is missing');
  const threads = start.kind === 'recall' ? Math.min(start.servers.length + 4, MOST_THREADS) : 0;
  const child = fork(file, [], {
    execArgv: process.execArgv,
    env: { ...process.env, ...(threads > 0 ? { UV_THREADPOOL_SIZE: `${threads}` } : {}) },
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  let end: RunEnd | undefined;
  let group: number | undefined;
  let isReady = false;
  let grace: NodeJS.Timeout | undefined;
  const send = (message: ToJob): void => {
    // Of one that is gone its end tells.
    if (child.connected) child.send(message, () => {});
  };
  child.on('message', (message: FromJob) => {
    if (message.kind === 'ready') {
      isReady = true;
      send(start);
    }
    if (message.kind === 'end') end = message.end;
    if (message.kind === 'group') group = message.pid;
    hear(message);
  });
  const ended = new Promise<{ how: string; end?: RunEnd }>((resolve) => {
    const settle = (how: string): void => {
      clearTimeout(grace);
      // It could not do this itself.
      if (group !== undefined) killGroup(group, 'SIGKILL');
      resolve({ how, ...(end ? { end } : {}) });
    };
    child.once('error', (e) => {
      // Also of a signal that could not be sent: then it runs.
      if (child.pid === undefined) settle(e.message);
    });
    child.once('exit', (code, signal) => settle(signal ?? `exit code ${code}`));
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
