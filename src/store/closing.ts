import { setMaxListeners } from 'node:events';
import { StoreUncertainError } from '../errors.js';
import type { CallOptions } from './store.js';

/** Ends the calls of a store that is closed. */
export class Closing {
  readonly #controller = new AbortController();
  readonly #place: string;

  constructor(place: string) {
    this.#place = place;
    // As many as there are calls.
    setMaxListeners(0, this.#controller.signal);
  }

  get closed(): boolean {
    return this.#controller.signal.aborted;
  }

  /** Aborts with the caller's reason, or when the store is closed. */
  signal({ signal }: CallOptions): AbortSignal {
    const own = this.#controller.signal;
    return signal ? AbortSignal.any([signal, own]) : own;
  }

  close(): void {
    this.#controller.abort(new StoreUncertainError(`the store ${this.#place} was closed`));
  }
}
