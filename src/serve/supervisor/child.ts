import { fork } from 'node:child_process';
import { InternalError } from '../../errors.js';
import { packageFile } from '../../package.js';
import type { FromReceiver, ToReceiver } from '../receiver/messages.js';
import type { ErrorReport } from '../status.js';

/** Milliseconds for a receiver to bring to disk what it has. What was confirmed is there already. */
const STOP_GRACE = 30_000;

/** How a receiver's process ended: `how` of the process, `error` as it said itself. */
export interface ChildEnd {
  how: string;
  error?: ErrorReport;
}

/** A running process of a receiver. */
export interface Child {
  readonly pid: number | undefined;
  readonly ended: Promise<ChildEnd>;
  /** Asks it to end; one that does not is killed after a while. */
  stop(): void;
  /** Now. */
  kill(): void;
}

export type Start = Extract<ToReceiver, { kind: 'start' }>;
/** Begins a receiver's process; `hear` gets all that it says. */
export type Launch = (start: Start, hear: (message: FromReceiver) => void) => Child;

export const launchReceiver: Launch = (start, hear) => {
  const file = packageFile('serve-receiver.cjs');
  if (file === undefined) throw new InternalError('the program of receivers is missing');
  const child = fork(file, [], {
    execArgv: process.execArgv,
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  let error: ErrorReport | undefined;
  let grace: NodeJS.Timeout | undefined;
  let isReady = false;
  const send = (message: ToReceiver): void => {
    // Of one that is gone its end tells.
    if (child.connected) child.send(message, () => {});
  };
  child.on('message', (message: FromReceiver) => {
    if (message.kind === 'ready') {
      isReady = true;
      send(start);
    }
    if (message.kind === 'end') error = message.error;
    hear(message);
  });
  const ended = new Promise<ChildEnd>((resolve) => {
    const end = (how: string): void => {
      clearTimeout(grace);
      resolve({ how, ...(error ? { error } : {}) });
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
      grace ??= setTimeout(() => child.kill('SIGKILL'), STOP_GRACE);
      send({ kind: 'stop' });
    },
    kill: () => void child.kill('SIGKILL'),
  };
};
