import { readdirSync } from 'node:fs';
import { getPriority, setPriority } from 'node:os';

/** Between "when nobody else wants to" and what receivers have. */
const NICE = 10;

/**
 * Lets receivers go first: of the processor and, as the schedulers of disks go by it, of the disk. One
 * that has a lower priority already, as its supervisor was begun so, keeps it: to raise it is not allowed.
 * On Linux each thread has a priority of its own, and gets that of the one that begins it.
 */
export function yieldToOthers(nice = NICE): void {
  try {
    if (getPriority() >= nice) return;
    for (const thread of readdirSync('/proc/self/task')) setPriority(Number(thread), nice);
  } catch {
    try {
      setPriority(nice);
    } catch {
      // Then all are equal.
    }
  }
}
