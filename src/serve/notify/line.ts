import type { Tell } from '../part.js';
import { reportOf } from '../status.js';

/** Tells of something that fails once, and once more when it is well. */
export class Line {
  readonly #tell: Tell;
  readonly #event: string;
  readonly #what: string;
  #failed = false;

  /** @param what as a sentence begins: `the heartbeat` */
  constructor(tell: Tell, event: string, what: string) {
    this.#tell = tell;
    this.#event = event;
    this.#what = what;
  }

  failed(error: unknown): void {
    if (this.#failed) return;
    this.#failed = true;
    const { code, message, hint } = reportOf(error);
    this.#tell({
      ...{ level: 'warning', event: `${this.#event}-failed`, code },
      message: `${this.#what} could not be sent: ${message}; it is tried again`,
      ...(hint === undefined ? {} : { hint }),
    });
  }

  well(): void {
    if (!this.#failed) return;
    this.#failed = false;
    this.#tell({
      ...{ level: 'info', event: this.#event },
      message: `${this.#what} can be sent again`,
    });
  }
}
