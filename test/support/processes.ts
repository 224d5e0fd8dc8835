import { readdirSync, readFileSync } from 'node:fs';

interface ProcStat {
  pid: number;
  parent: number;
  zombie: boolean;
  stopped: boolean;
}

function stat(pid: number): ProcStat | undefined {
  try {
    // "pid (name) state ppid …"; the name may hold anything, also parentheses.
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
    const [state, parent] = text.slice(text.lastIndexOf(')') + 2).split(' ');
    const zombie = state === 'Z' || state === 'X';
    return { pid, parent: Number(parent), zombie, stopped: state === 'T' };
  } catch {
    return undefined;
  }
}

/** True while a process runs; one that only waits to be reaped does not. */
export function isRunning(pid: number): boolean {
  const found = stat(pid);
  return found !== undefined && !found.zombie;
}

/** True once it stands still for SIGSTOP. */
export function isStopped(pid: number): boolean {
  return stat(pid)?.stopped ?? false;
}

/** Direct children of a process that run. */
export function childrenOf(pid: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((name) => stat(Number(name)))
    .filter((p): p is ProcStat => p !== undefined && p.parent === pid && !p.zombie)
    .map((p) => p.pid);
}

/** Sends a signal to a process that may be gone already. */
export function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
