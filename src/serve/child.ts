import { fork } from 'node:child_process';
import { InternalError } from '../errors.js';
import { packageFile } from '../package.js';
import type { ErrorReport } from './status.js';
import type { FromWorker } from './worker-messages.js';

/** Milliseconds for a killed process to be gone: one that a disk holds in the kernel may stay for ever. */
const KILLED = 5000;

/** How a process ended: `how` of the process, `error` as it said itself. */
export interface ChildEnd {
  how: string;
  error?: ErrorReport;
  /** It is there yet, and will do nothing any more: it was killed, and the kernel holds it. */
  isLeft?: true;
}

/** What is told of one that is left. @param what it is called */
export const leftMessage = (what: string): string =>
  `${what} was killed and is not gone: it waits in the kernel, perhaps for the disk; it is not waited for`;

/** A running process that works for "serve". */
export interface Child {
  readonly pid: number | undefined;
  readonly ended: Promise<ChildEnd>;
  /** Asks it to end; one that does not is killed after a while, and not waited for for ever. */
  stop(): void;
  /** Now. */
  kill(): void;
}

export interface Program {
  /** Of the built package. */
  file: string;
  /** Milliseconds that it may take to end. */
  grace: number;
  /** Options of Node.js beside those of this process. */
  node?: readonly string[];
}

/** Begins a process: it is sent `start` when it listens, and `hear` gets all that it says. */
export function launch<Snapshot>(
  program: Program,
  start: object,
  hear: (message: FromWorker<Snapshot>) => void,
): Child {
  const file = packageFile(program.file);
  if (file === undefined) throw new InternalError(`the program ${program.file} is missing`);
  const child = fork(file, [], {
    execArgv: [...process.execArgv, ...(program.node ?? [])],
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  let error: ErrorReport | undefined;
  let grace: NodeJS.Timeout | undefined;
  let isReady = false;
  const send = (message: object): void => {
    // Of one that is gone its end tells.
    if (child.connected) child.send(message, () => {});
  };
  child.on('message', (message: FromWorker<Snapshot>) => {
    if (message.kind === 'ready') {
      isReady = true;
      send(start);
    }
    if (message.kind === 'end') error = message.error;
    hear(message);
  });
  let leave = (): void => {};
  const ended = new Promise<ChildEnd>((resolve) => {
    const end = (how: string, more: Partial<ChildEnd> = {}): void => {
      clearTimeout(grace);
      resolve({ how, ...(error ? { error } : {}), ...more });
    };
    leave = () => {
      if (child.connected) child.disconnect();
      child.unref();
      end('SIGKILL', { isLeft: true });
    };
    child.once('error', (e) => {
      // Also of a signal that could not be sent: then it runs.
      if (child.pid === undefined) end(e.message);
    });
    child.once('exit', (code, signal) => end(signal ?? `exit code ${code}`));
  });
  return {
    pid: child.pid,
    ended,
    stop() {
      // It has nothing yet, and may not listen.
      if (!isReady) child.kill('SIGKILL');
      grace ??= setTimeout(() => {
        child.kill('SIGKILL');
        grace = setTimeout(leave, KILLED);
      }, program.grace);
      send({ kind: 'stop' });
    },
    kill: () => void child.kill('SIGKILL'),
  };
}
