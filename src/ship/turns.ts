import { unlessAborted } from '../store/aborted.js';

/** So many may do something at the same time; the others wait, whoever came first goes first. */
export class Turns {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(count: number) {
    this.#free = count;
  }

  /** @throws the signal's reason while it waits, what `action` throws */
  async take<T>(action: () => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    if (this.#free > 0) this.#free--;
    else await this.#turn(signal);
    try {
      return await action();
    } finally {
      this.#pass();
    }
  }

  async #turn(signal: AbortSignal | undefined): Promise<void> {
    let start = (): void => {};
    const turn = new Promise<void>((resolve) => {
      start = resolve;
    });
    this.#waiting.push(start);
    try {
      await unlessAborted(turn, signal);
    } catch (e) {
      const at = this.#waiting.indexOf(start);
      if (at >= 0) this.#waiting.splice(at, 1);
      // It came at the same moment: it is the next one's.
      else this.#pass();
      throw e;
    }
  }

  #pass(): void {
    const next = this.#waiting.shift();
    if (next) next();
    else this.#free++;
  }
}
