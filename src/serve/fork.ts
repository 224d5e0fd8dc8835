import { type ChildProcess, fork } from 'node:child_process';
import { InternalError } from '../errors.js';
import { packageFile } from '../package.js';

export interface ForkOptions {
  /** Options of Node.js beside those of this process. */
  node?: readonly string[];
  /** Of the environment, beside that of this process. */
  env?: Readonly<Record<string, string>>;
  /** Nobody takes what it prints. */
  isQuiet?: boolean;
}

/** Begins a program of the built package, with a channel to it. @throws InternalError if it is missing */
export function forkProgram(program: string, options: ForkOptions = {}): ChildProcess {
  const { node = [], env = {}, isQuiet = false } = options;
  const file = packageFile(program);
  if (file === undefined) throw new InternalError(`the program ${program} is missing`);
  return fork(file, [], {
    execArgv: [...ownOptions(), ...node],
    env: { ...process.env, ...env },
    stdio: ['ignore', isQuiet ? 'ignore' : 'inherit', 'inherit', 'ipc'],
  });
}

/**
 * Options of this process, without a program among them (`node -e`), which the other one would run in
 * turn. Node.js itself takes that out only of the very array that it made.
 */
function ownOptions(): readonly string[] {
  const at = process.execArgv.findIndex((option) => /^(-e|--eval|-p|-pe|--print)$/.test(option));
  return at < 0 ? process.execArgv : process.execArgv.toSpliced(at, 2);
}

/** Of one that is gone its end tells. */
export function sendTo(child: ChildProcess, message: object): void {
  if (child.connected) child.send(message, () => {});
}

/** How a process ended, or why there was none. */
export function endOf(child: ChildProcess): Promise<string> {
  return new Promise((resolve) => {
    child.once('error', (e) => {
      // Also of a signal that could not be sent: then it runs.
      if (child.pid === undefined) resolve(e.message);
    });
    child.once('exit', (code, signal) => resolve(signal ?? `exit code ${code}`));
  });
}
