/** Part of a core that looking may take in the long run. */
const SHARE = 0.1;
/** Milliseconds of work that a while without any is good for, and that may be owed at most. */
const MOST = 3000;
const OWED = 1000;

/**
 * Keeps what looking costs below a part of a core: what was worked has to be waited for ten times. Who
 * did little for a while looks at once.
 */
export class Budget {
  #left = MOST;
  #at: number;

  /** @param now milliseconds of a clock that nobody sets */
  constructor(now: number) {
    this.#at = now;
  }

  /** @param urgent something changed; else it is only time to look again */
  allows(now: number, urgent: boolean): boolean {
    this.#gain(now);
    return this.#left > (urgent ? 0 : MOST / 2);
  }

  spend(now: number, busy: number): void {
    this.#gain(now);
    this.#left = Math.max(-OWED, this.#left - busy);
  }

  #gain(now: number): void {
    this.#left = Math.min(MOST, this.#left + (now - this.#at) * SHARE);
    this.#at = now;
  }
}
