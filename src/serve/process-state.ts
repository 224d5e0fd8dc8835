import { readFile } from 'node:fs/promises';

/**
 * - `stopped`: by a signal, or a debugger
 * - `waiting`: in the kernel, for a disk say, where no signal reaches it
 * - `other`: it runs or sleeps, or the platform does not tell
 */
export type ProcessState = 'stopped' | 'waiting' | 'other';

/** What a process is at (Linux, proc(5) stat field 3). */
export async function processState(pid: number): Promise<ProcessState> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  // The second field is the command in parentheses and may contain any character.
  const letter = stat.slice(stat.lastIndexOf(')') + 2)[0];
  if (letter === 'T' || letter === 't') return 'stopped';
  return letter === 'D' ? 'waiting' : 'other';
}
