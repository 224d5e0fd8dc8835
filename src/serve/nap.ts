import { abortableDelay, LONGEST_TIMER } from '../delay.js';

/** Waits that anybody can end, also one that has not begun yet. */
export class Nap {
  #wake = new AbortController();

  /** What is waited for from now on ends with the next `awake`. */
  get signal(): AbortSignal {
    return this.#wake.signal;
  }

  awake(): void {
    const sleeping = this.#wake;
    this.#wake = new AbortController();
    sleeping.abort();
  }
}

/** Until `signal` is given. */
export const untilAwake = (signal: AbortSignal): Promise<void> =>
  abortableDelay(LONGEST_TIMER, signal);

/**
 * Milliseconds before a process that ended is begun again: doubling up to the longest, and of those
 * that ended together not the same.
 * @param failures ends in a row before this one
 */
export function restartDelay(failures: number, first: number, longest: number): number {
  const ceiling = Math.min(longest, first * 2 ** Math.min(failures, 20));
  return Math.round(ceiling * (0.5 + Math.random() / 2));
}
