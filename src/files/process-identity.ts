import { randomUUID } from 'node:crypto';
import { readFile, readlink } from 'node:fs/promises';
import { hostname } from 'node:os';

/** Who holds a lock. Fields that the platform does not tell are empty. */
export interface ProcessIdentity {
  host: string;
  /** Changes with every boot (Linux). Containers of one machine share it. */
  bootId: string;
  /** The PID namespace in which `pid` means something (Linux). */
  pidNamespace: string;
  pid: number;
  /** Start of the process in clock ticks since boot (Linux, proc(5) stat field 22). */
  startTime: string;
  /** Unique to one acquisition. */
  token: string;
}

const read = (path: string) => readFile(path, 'utf8').catch(() => '');

/** State letter and start time of a process; undefined where the platform does not tell. */
async function processStat(pid: number | 'self') {
  const stat = await read(`/proc/${pid}/stat`);
  // The second field is the command in parentheses and may contain any character.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields.length > 19 ? { state: fields[0], startTime: fields[19] as string } : undefined;
}

const pidNamespace = () => readlink('/proc/self/ns/pid').catch(() => '');

/** This process, with a new token. */
export async function ownIdentity(): Promise<ProcessIdentity> {
  return {
    host: hostname(),
    bootId: (await read('/proc/sys/kernel/random/boot_id')).trim(),
    pidNamespace: await pidNamespace(),
    pid: process.pid,
    startTime: (await processStat('self'))?.startTime ?? '',
    token: randomUUID(),
  };
}

/** What can be said of another process. `elsewhere`: it may run where we cannot look. */
export type Liveness = 'alive' | 'dead' | 'elsewhere';

/**
 * Whether the process still runs. `dead` is a proof: this host was booted since, or the process
 * is gone, or its number belongs to a younger one.
 */
export async function liveness(other: ProcessIdentity, self: ProcessIdentity): Promise<Liveness> {
  const sameBoot = other.bootId !== '' && other.bootId === self.bootId;
  if (!sameBoot && other.host !== self.host) return 'elsewhere';
  if (!sameBoot && other.bootId !== '' && self.bootId !== '') return 'dead';
  if (other.pidNamespace !== self.pidNamespace) return 'elsewhere';
  try {
    process.kill(other.pid, 0);
  } catch (e) {
    // EPERM: it exists and is another user's.
    if ((e as NodeJS.ErrnoException).code === 'ESRCH') return 'dead';
  }
  const stat = await processStat(other.pid);
  if (!stat) return 'alive';
  if (stat.state === 'Z' || stat.state === 'X') return 'dead';
  return other.startTime !== '' && stat.startTime !== other.startTime ? 'dead' : 'alive';
}

/**
 * Whether it is certain, wherever its name was found, that the process is gone. Only of this boot of
 * this machine: in a place that many share, another machine may have the same name.
 */
export async function isProvenDead(
  other: ProcessIdentity,
  self: ProcessIdentity,
): Promise<boolean> {
  const isOfThisBoot = other.bootId !== '' && other.bootId === self.bootId;
  return isOfThisBoot && (await liveness(other, self)) === 'dead';
}
