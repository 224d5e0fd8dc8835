import type { HeldFile } from '../archive/shipping/progress.js';
import type { WalkeepError } from '../errors.js';
import { isThere, type Snapshot } from './source.js';
import { type ShipState, troubleOf } from './state.js';

/** Milliseconds after which a file that was held back is looked at again. */
const LOOK_AGAIN = 60_000;

/**
 * Files of ours that are not sent since they must not be called good. They are known across runs: one
 * that was mended meanwhile is let go when it is sent, one that is gone when a look does not show it.
 */
export class HeldFiles {
  readonly #state: ShipState;
  /** Of those that were looked at in this run. */
  readonly #lookAgain = new Map<string, number>();

  constructor(state: ShipState) {
    this.#state = state;
  }

  get all(): readonly HeldFile[] {
    return this.#state.progress.held;
  }

  has(name: string): boolean {
    return this.all.some((file) => file.name === name);
  }

  isDue(name: string): boolean {
    return (this.#lookAgain.get(name) ?? 0) <= performance.now();
  }

  /** @returns true if it was not told of in this run */
  hold(name: string, error: WalkeepError): boolean {
    const isNews =
      !this.#lookAgain.has(name) ||
      !this.all.some((file) => file.name === name && file.message === error.message);
    this.#lookAgain.set(name, performance.now() + LOOK_AGAIN);
    if (!isNews) return false;
    const others = this.all.filter((file) => file.name !== name);
    this.#state.setHeld([...others, { name, ...troubleOf(error) }]);
    return true;
  }

  /** Lets go what is not there any more. */
  look(snapshot: Snapshot): void {
    this.#keep((name) => isThere(snapshot, name));
  }

  #keep(isHeld: (name: string) => boolean): void {
    const stay = this.all.filter(({ name }) => isHeld(name));
    if (stay.length === this.all.length) return;
    for (const { name } of this.all) if (!isHeld(name)) this.#lookAgain.delete(name);
    this.#state.setHeld(stay);
  }

  release(name: string): void {
    this.#keep((held) => held !== name);
  }
}
