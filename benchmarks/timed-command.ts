import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { serverUser } from '../test/support/scratch.js';

/** What one command took, start to end as who calls it sees it. */
export interface Timed {
  ms: number;
  /** User and system time of it and all it waited for, not of what it left running. */
  cpuMs: number;
}

/** A shell's own clocks: it starts a program as fast as PostgreSQL does, and counts in 1 ms. */
const SCRIPT = `
TIMEFORMAT='%3U %3S'
began=$EPOCHREALTIME
time "$@"
code=$?
echo "$began $EPOCHREALTIME" >&2
exit $code`;

/**
 * Runs a command to its end as the servers' user.
 * @throws with what it said if its exit code is not 0
 */
export function timed(command: readonly string[], cwd: string): Timed {
  const { status, stderr, error } = spawnSync('bash', ['-c', SCRIPT, 'bash', ...command], {
    ...serverUser,
    cwd,
    env: { PATH: process.env.PATH, LC_ALL: 'C', HOME: '/' },
    stdio: ['ignore', 'ignore', 'pipe'],
    encoding: 'utf8',
  });
  if (error) throw error;
  const lines = stderr.trimEnd().split('\n');
  const figures = lines.slice(-2).join(' ').split(' ').map(Number);
  if (status !== 0 || figures.length !== 4 || figures.some(Number.isNaN)) {
    throw new Error(`${command.join(' ')} ended with ${status}: ${stderr}`);
  }
  const [user, system, began, ended] = figures as [number, number, number, number];
  return { ms: (ended - began) * 1000, cpuMs: (user + system) * 1000 };
}

/**
 * Runs all of some commands each round, and another one first each time: what ran before leaves its
 * traces in the caches.
 * @param before is called before each of them
 */
export function timedInTurn(
  commands: Readonly<Record<string, readonly string[]>>,
  rounds: number,
  before: (name: string) => void = () => {},
): Record<string, Timed[]> {
  const results: Record<string, Timed[]> = {};
  for (let round = 0; round < rounds; round += 1) {
    const order = Object.entries(commands);
    order.push(...order.splice(0, round % order.length));
    for (const [name, command] of order) {
      before(name);
      results[name] ??= [];
      results[name].push(timed(command, '/'));
    }
  }
  return results;
}

/** Milliseconds between two looks at a process: the peak is the kernel's, until the process has ended. */
const LOOK = 20;

/**
 * Runs a command to its end as the servers' user; gives the most memory that it had, MB.
 * @throws if its exit code is not 0
 */
export async function peakMemory([program, ...args]: readonly string[], cwd: string) {
  const child = spawn(program as string, args, {
    ...{ ...serverUser, cwd, stdio: 'ignore' },
    env: { PATH: process.env.PATH, LC_ALL: 'C', HOME: '/' },
  });
  let peak = 0;
  const timer = setInterval(() => {
    try {
      const status = readFileSync(`/proc/${child.pid}/status`, 'utf8');
      peak = Math.max(peak, Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1] ?? 0));
    } catch {
      // It has just ended.
    }
  }, LOOK);
  const [code] = await once(child, 'exit');
  clearInterval(timer);
  if (code !== 0) throw new Error(`${program} ${args.join(' ')} ended with ${code}`);
  return peak * 1.024e-3;
}
