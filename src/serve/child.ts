import { endOf, forkProgram, sendTo } from './fork.js';
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
  const child = forkProgram(program.file, { node: program.node ?? [] });
  let error: ErrorReport | undefined;
  let grace: NodeJS.Timeout | undefined;
  let isReady = false;
  child.on('message', (message: FromWorker<Snapshot>) => {
    if (message.kind === 'ready') {
      isReady = true;
      sendTo(child, start);
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
    void endOf(child).then((how) => end(how));
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
      sendTo(child, { kind: 'stop' });
    },
    kill: () => void child.kill('SIGKILL'),
  };
}
