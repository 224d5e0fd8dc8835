import { type ProcessState, processState } from './process-state.js';

/** Milliseconds between looks at all processes. */
const LOOK = 1000;
/** A look that comes so late shows that this process itself did not run. */
const LATE = 5000;

export interface Watched {
  /** Looks whether it lives. @param now of performance.now() */
  look(now: number): unknown;
  /** This process itself did not run for a while: nobody could be heard. */
  forgive(): void;
}

/** Looks at all of them each second, until the timer is cleared. */
export function watchOver(all: () => Iterable<Watched>): NodeJS.Timeout {
  let before = performance.now();
  return setInterval(() => {
    const now = performance.now();
    const late = now - before > LATE;
    before = now;
    for (const one of all()) {
      if (late) one.forgive();
      else void one.look(now);
    }
  }, LOOK);
}

/** When a process was heard of last, and whether that is too long ago. */
export class SignsOfLife {
  readonly #limit: number;
  #at = 0;
  #isSilent = false;

  /** @param limit milliseconds without a sign of life after which a process is looked at */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Of `performance.now()`. */
  get at(): number {
    return this.#at;
  }

  get isSilent(): boolean {
    return this.#isSilent;
  }

  /** Of another process. */
  begin(): void {
    this.#at = performance.now();
    this.#isSilent = false;
  }

  /** It was heard. @returns whether it had been silent for too long */
  note(now: number): boolean {
    const wasSilent = this.#isSilent;
    this.#at = now;
    this.#isSilent = false;
    return wasSilent;
  }

  forgive(): void {
    this.#at = performance.now();
  }

  /**
   * What a process is at that was not heard for too long: once, but as often as it is looked at where
   * it is stopped. Undefined of one that is heard.
   * @param isSame it is still the process that is meant
   */
  async look(
    pid: number | undefined,
    now: number,
    isSame: () => boolean,
  ): Promise<ProcessState | undefined> {
    if (pid === undefined || now - this.#at < this.#limit) return undefined;
    const state = await processState(pid);
    if (!isSame()) return undefined;
    const isTold = this.#isSilent;
    this.#isSilent = true;
    return isTold && state !== 'stopped' ? undefined : state;
  }
}
