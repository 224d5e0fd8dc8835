import { readdirSync } from 'node:fs';
import { setPriority } from 'node:os';

/** Between "when nobody else wants to" and what receivers have. */
const NICE = 10;

/**
 * Lets receivers go first: of the processor and, as the schedulers of disks go by it, of the disk. On
 * Linux each thread has a priority of its own, and gets that of the one that begins it.
 */
export function yieldToOthers(): void {
  try {
    for (const thread of readdirSync('/proc/self/task')) setPriority(Number(thread), NICE);
  } catch {
    try {
      setPriority(NICE);
    } catch {
      // Then all are equal.
    }
  }
}
