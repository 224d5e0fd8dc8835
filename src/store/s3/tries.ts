import { setMaxListeners } from 'node:events';
import { setTimeout as wait } from 'node:timers/promises';
import { StoreUncertainError, type WalkeepError } from '../../errors.js';

export interface Patience {
  /** Milliseconds for one attempt at a small request; bytes get more. */
  attempt: number;
  /** Milliseconds for all attempts together. */
  whole: number;
}

export const PATIENCE: Patience = { attempt: 35_000, whole: 300_000 };

/** Told of each attempt that failed and passes, long before all of them together have failed. */
export type Failing = (error: WalkeepError) => void;

/** A line that brings less has to be called broken. */
const SLOWEST_BYTES_PER_MS = 256;
const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 20_000;

/** Milliseconds that sending or reading so many bytes may take. */
export function timeFor(bytes: number, { attempt }: Patience): number {
  return attempt + Math.ceil(bytes / SLOWEST_BYTES_PER_MS);
}

/** A signal that ends with another one, or by itself after a time. To be let go of at the end. */
export class Deadline {
  readonly signal: AbortSignal;
  readonly #controller = new AbortController();
  readonly #timer: NodeJS.Timeout;
  readonly #outer: readonly AbortSignal[];
  readonly #end = () => {
    const ended = this.#outer.find((signal) => signal.aborted);
    this.#controller.abort(ended?.reason);
  };

  constructor(ms: number, reason: () => Error, outer: readonly (AbortSignal | undefined)[]) {
    this.signal = this.#controller.signal;
    this.#outer = outer.filter((signal) => signal !== undefined);
    this.#timer = setTimeout(() => this.#controller.abort(reason()), ms);
    for (const signal of this.#outer) {
      // One may end any number of calls.
      setMaxListeners(0, signal);
      signal.addEventListener('abort', this.#end, { once: true });
    }
    if (this.#outer.some((signal) => signal.aborted)) this.#end();
  }

  release(): void {
    clearTimeout(this.#timer);
    for (const signal of this.#outer) signal.removeEventListener('abort', this.#end);
  }
}

/**
 * The attempts at one call, with longer and longer pauses of random length between them: what failed
 * at the same time for many is not to come again at the same time.
 */
export class Tries {
  readonly signal: AbortSignal;
  readonly #deadline: Deadline;
  readonly #end: number;
  #failed = 0;
  #last: WalkeepError | undefined;
  readonly #failing: Failing | undefined;

  constructor(
    patience: Patience,
    what: string,
    outer: readonly (AbortSignal | undefined)[],
    failing?: Failing,
  ) {
    this.#failing = failing;
    this.#end = performance.now() + patience.whole;
    this.#deadline = new Deadline(
      patience.whole,
      () => this.#last ?? new StoreUncertainError(`${what} took longer than ${patience.whole} ms`),
      outer,
    );
    this.signal = this.#deadline.signal;
  }

  /** Waits after an attempt that failed. @throws its error when there is no time for another one */
  async again(error: WalkeepError, atLeastMs = 0): Promise<void> {
    this.#last = error;
    this.#failing?.(error);
    const most = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** this.#failed++);
    const pause = Math.max(Math.random() * most, Math.min(atLeastMs, LONGEST_PAUSE_MS));
    if (performance.now() + pause >= this.#end) throw error;
    await wait(pause, undefined, { signal: this.signal }).catch(() => this.signal.throwIfAborted());
  }

  release(): void {
    this.#deadline.release();
  }
}
