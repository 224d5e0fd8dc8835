import fsp from 'node:fs/promises';
import { basename, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { StorageError } from '../errors.js';

/** Milliseconds that a server has for an immediate stop, before it and its children are killed. */
const STOP_FOR = 15_000;
const LOOK_EVERY = 20;

/**
 * Stops the server of a data directory, however it stands; resolves when no process of it runs any
 * more. Its number alone says nothing: another process may have it by now.
 * @throws StorageError if it does not go away
 */
export async function killServerIn(dataDir: string): Promise<void> {
  const directory = await fsp.realpath(dataDir).catch(() => undefined);
  if (directory === undefined) return;
  const began = performance.now();
  for (;;) {
    const running = await processesIn(directory);
    if (running.length === 0) return;
    const spent = performance.now() - began;
    if (spent > 2 * STOP_FOR) break;
    for (const pid of running) send(pid, spent > STOP_FOR ? 'SIGKILL' : 'SIGQUIT');
    await delay(LOOK_EVERY);
  }
  throw new StorageError(`a server still runs in "${dataDir}"`, { path: dataDir });
}

/**
 * PostgreSQL's processes have the data directory as their working directory; a person's shell may
 * have it, too. Where the system does not tell, the postmaster is believed that its file names.
 */
async function processesIn(directory: string): Promise<number[]> {
  const all = await fsp.readdir('/proc').catch(() => [] as string[]);
  const numbers = all.filter((name) => /^\d+$/.test(name));
  if (numbers.length === 0) return postmasterOf(directory);
  const found: number[] = [];
  for (const pid of numbers) {
    // Of a process that has ended, and waits to be reaped, it cannot be read.
    const cwd = await fsp.readlink(`/proc/${pid}/cwd`).catch(() => undefined);
    if (cwd !== directory) continue;
    const program = await fsp.readlink(`/proc/${pid}/exe`).catch(() => '');
    if (/^postgres\b/.test(basename(program))) found.push(Number(pid));
  }
  return found;
}

async function postmasterOf(directory: string): Promise<number[]> {
  const text = await fsp.readFile(join(directory, 'postmaster.pid'), 'utf8').catch(() => '');
  const [pid, where] = text.split('\n');
  if (where !== directory || !/^[1-9]\d*$/.test(pid ?? '')) return [];
  return send(Number(pid), 0) ? [Number(pid)] : [];
}

/** False if there is no such process. */
function send(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(pid, signal);
  } catch (e) {
    return (e as NodeJS.ErrnoException).code === 'EPERM';
  }
}
