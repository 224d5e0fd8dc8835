import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { killAtEnd, packageRoot } from '../test/support/scratch.js';
import { findTool } from '../test/support/tools.js';

/** A receiver under test: the command that runs it, and how it is called in tables. */
export interface Contender {
  name: string;
  command: readonly string[];
}

/** `walkeep receive` as built here. */
export const walkeep: Contender = {
  name: 'walkeep',
  command: [process.execPath, join(packageRoot, 'bin/walkeep'), 'receive'],
};

/** pg_receivewal from PATH or Debian's place, undefined where there is none. */
export function pgReceivewal(): Contender | undefined {
  const path = findTool('pg_receivewal', 15);
  return path ? { name: 'pg_receivewal', command: [path] } : undefined;
}

/** What a finished child used. */
export interface Usage {
  seconds: number;
  /** User and system CPU seconds. */
  cpu: number;
  /** Peak resident set, MB (VmHWM). */
  rssMb: number;
  exitCode: number | null;
  stderr: string;
}

/** A running receiver whose resources are read from /proc. */
export class Running {
  readonly child: ChildProcess;
  stderr = '';
  private readonly began = performance.now();
  private cpu = 0;
  private rssMb = 0;
  private readonly timer: NodeJS.Timeout;
  private readonly exited: Promise<number | null>;

  constructor(contender: Contender, args: readonly string[], env: NodeJS.ProcessEnv = {}) {
    const [program, ...first] = contender.command;
    this.child = spawn(program as string, [...first, ...args], {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    this.child.stderr?.on('data', (d) => {
      this.stderr += d;
    });
    // Short-lived: the last look is at most this old, and the peak is the kernel's own.
    this.timer = setInterval(() => this.look(), 5);
    this.exited = new Promise((resolve) => this.child.once('exit', (code) => resolve(code)));
    killAtEnd(this.child);
  }

  /** User and system CPU seconds so far. */
  look(): number {
    try {
      const stat = readFileSync(`/proc/${this.child.pid}/stat`, 'latin1');
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      // utime and stime, in clock ticks of 10 ms (proc(5); fields 14 and 15).
      this.cpu = (Number(fields[11]) + Number(fields[12])) / 100;
      const status = readFileSync(`/proc/${this.child.pid}/status`, 'latin1');
      const peak = /VmHWM:\s+(\d+) kB/.exec(status);
      if (peak) this.rssMb = Number(peak[1]) / 1024;
    } catch {
      // Gone: what was seen last stands.
    }
    return this.cpu;
  }

  async finish(): Promise<Usage> {
    const exitCode = await this.exited;
    clearInterval(this.timer);
    const seconds = (performance.now() - this.began) / 1000;
    const { cpu, rssMb, stderr } = this;
    return { seconds, cpu, rssMb, exitCode, stderr };
  }

  async stop(): Promise<Usage> {
    this.child.kill('SIGINT');
    return this.finish();
  }
}
