import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { ToldError } from '../../beside.js';
import { reason } from '../../files/durable.js';
import { Lines } from './lines.js';

/** Milliseconds for a program to end when it was asked to. */
const GRACE = 15_000;
/** Milliseconds for what an ended program printed to be read: something it left may hold the pipe. */
const DRAIN = 1000;
/** Characters of a line on stdout, where JSON may come, and on stderr. */
const LONGEST = { stdout: 1024 * 1024, stderr: 4096 } as const;

export interface ProgramOptions {
  program: string;
  args: readonly string[];
  env: NodeJS.ProcessEnv;
  /**
   * `beside`: a command of ours, which ends with the channel; `group`: anything, with all that it
   * begins in a process group of its own.
   */
  how: 'beside' | 'group';
  /** Asks it to end. */
  signal: AbortSignal;
  line(line: string, from: 'stdout' | 'stderr'): void;
  started?(pid: number): void;
  told?(error: ToldError): void;
}

/** How a program ended: `how` says it in words. */
export interface ProgramEnd {
  code: number | undefined;
  how: string;
}

/** Runs a program to its end. Never rejects. */
export function runProgram(options: ProgramOptions): Promise<ProgramEnd> {
  const { program, args, env, how, signal, line } = options;
  return new Promise((resolve) => {
    let child: ChildProcess;
    try {
      child = spawn(program, args, {
        ...{ env, detached: how === 'group' },
        stdio: ['ignore', 'pipe', 'pipe', ...(how === 'beside' ? (['ipc'] as const) : [])],
      });
    } catch (e) {
      // Of what cannot be an argument.
      return resolve({ code: undefined, how: `could not be run: ${(e as Error).message}` });
    }
    let late: NodeJS.Timeout | undefined;
    const kill = (name: NodeJS.Signals): void => {
      if (how === 'group' && child.pid !== undefined) killGroup(child.pid, name);
      else child.kill(name);
    };
    const stop = (): void => {
      if (how === 'group') kill('SIGTERM');
      else if (child.connected) child.disconnect();
      late = setTimeout(() => kill('SIGKILL'), GRACE);
    };
    for (const from of ['stdout', 'stderr'] as const) {
      const lines = new Lines(LONGEST[from], (text) => line(text, from));
      child[from]
        ?.on('data', (bytes: Buffer) => lines.take(bytes))
        .once('close', () => lines.end());
      child[from]?.on('error', () => {});
    }
    child.on('message', (message: ToldError) => {
      if (message?.kind === 'error') options.told?.(message);
    });
    const settle = (end: ProgramEnd): void => {
      clearTimeout(late);
      signal.removeEventListener('abort', stop);
      resolve(end);
    };
    child.once('error', (e) => {
      // Also of a signal that could not be sent: then it runs.
      if (child.pid === undefined)
        settle({ code: undefined, how: `could not be run: ${reason(e)}` });
    });
    child.once('exit', (code, name) => {
      const end = { code: code ?? undefined, how: `ended with ${name ?? `exit code ${code}`}` };
      const drained = setTimeout(() => {
        child.stdout?.destroy();
        child.stderr?.destroy();
      }, DRAIN);
      // Not the child's own event: where the channel was closed here, Node.js has none.
      const closed = [child.stdout, child.stderr].map((stream) => {
        return stream && !stream.closed ? once(stream, 'close') : undefined;
      });
      void Promise.allSettled(closed).then(() => {
        clearTimeout(drained);
        settle(end);
      });
    });
    if (child.pid !== undefined) options.started?.(child.pid);
    if (signal.aborted) stop();
    else signal.addEventListener('abort', stop, { once: true });
  });
}

/** Signals a process group that may be gone. */
export function killGroup(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(-pid, name);
  } catch {
    // It is gone.
  }
}
