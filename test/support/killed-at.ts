import { type Dirent, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Random } from '../simulation/random.js';
import type { CliRun, ExitStatus } from './cli.js';
import { delay } from './wait.js';

/** What lies below directories, of which any may not be there. */
export interface Below {
  entries: number;
  bytes: number;
}

export function below(directories: readonly string[]): Below {
  const sum: Below = { entries: 0, bytes: 0 };
  const visit = (directory: string): void => {
    let found: Dirent[];
    try {
      found = readdirSync(directory, { withFileTypes: true });
    } catch {
      return;
    }
    for (const entry of found) {
      sum.entries += 1;
      const path = join(directory, entry.name);
      if (entry.isDirectory()) visit(path);
      // It may be gone meanwhile.
      else sum.bytes += statSync(path, { throwIfNoEntry: false })?.size ?? 0;
    }
  };
  for (const directory of directories) visit(directory);
  return sum;
}

/** An instant of a run, by what it has done so far: the same on a fast machine and on a slow one. */
export interface Instant {
  what: string;
  reached: () => boolean;
}

/** What a run does from its beginning to its end. */
export interface Course {
  directories: readonly string[];
  whole: Below;
  ms: number;
}

/** Measures a run that is not killed. */
export async function courseOf(run: () => CliRun, directories: readonly string[]): Promise<Course> {
  const before = below(directories);
  const began = performance.now();
  const one = run();
  const { code } = await one.exit;
  if (code !== 0) throw new Error(`it failed without being killed:\n${one.stderr}`);
  const after = below(directories);
  const whole = { entries: after.entries - before.entries, bytes: after.bytes - before.bytes };
  return { directories, whole, ms: performance.now() - began };
}

/** Half of them by what is on the disk, the others by time; all from now on. */
export function instantOf({ directories, whole, ms }: Course, random: Random): Instant {
  const share = random.below(1000) / 1000;
  const kind = random.pick(['bytes', 'entries', 'ms', 'ms'] as const);
  if (kind === 'ms') {
    const end = performance.now() + share * ms;
    return { what: `${Math.round(share * ms)} ms`, reached: () => performance.now() >= end };
  }
  const most = Math.round(share * whole[kind]);
  // What was left there is removed first.
  let least = Number.POSITIVE_INFINITY;
  return {
    what: `${most} ${kind}`,
    reached: () => {
      const now = below(directories)[kind];
      least = Math.min(least, now);
      return now - least >= most;
    },
  };
}

/**
 * Sends SIGKILL at the instant. A run that ends before it was not killed: then the course was
 * shorter than it was taken for.
 */
export async function killAt(
  run: CliRun,
  { reached }: Instant,
  course?: Course,
): Promise<ExitStatus> {
  let ended = false;
  const exit = run.exit.finally(() => {
    ended = true;
  });
  while (!ended && !reached()) await Promise.race([delay(1), exit]);
  const status = await run.stop('SIGKILL');
  if (course) course.ms *= status.signal ? 1.1 : 0.8;
  return status;
}
