/** Requests under way at once while the service keeps up. */
const MOST = 32;

type Outcome = 'good' | 'slow' | 'unclear';

/**
 * How many requests are under way at once: half as many when the service says that it is too much,
 * one more after a whole round of good answers.
 */
export class Pace {
  #limit: number;
  #running = 0;
  #good = 0;
  /** Requests that began before this number do not say anything about the present limit. */
  #began = 0;
  #since = 0;
  readonly #most: number;
  readonly #waiting: (() => void)[] = [];

  constructor(most = MOST) {
    this.#most = most;
    this.#limit = most;
  }

  get limit(): number {
    return this.#limit;
  }

  /** Waits for its turn; what it gives is to be called with how it went. @throws the signal's reason */
  async enter(signal: AbortSignal): Promise<(outcome: Outcome) => void> {
    signal.throwIfAborted();
    if (this.#running >= this.#limit) await this.#turn(signal);
    else this.#running++;
    const number = this.#began++;
    let left = false;
    return (outcome) => {
      if (left) return;
      left = true;
      this.#leave(number, outcome);
    };
  }

  #turn(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const start = () => {
        signal.removeEventListener('abort', abort);
        resolve();
      };
      const abort = () => {
        this.#waiting.splice(this.#waiting.indexOf(start), 1);
        reject(signal.reason);
      };
      signal.addEventListener('abort', abort, { once: true });
      this.#waiting.push(start);
    });
  }

  #leave(number: number, outcome: Outcome): void {
    this.#running--;
    if (outcome === 'slow' && number >= this.#since) {
      this.#limit = Math.max(1, Math.floor(this.#limit / 2));
      this.#since = this.#began;
      this.#good = 0;
    }
    if (outcome === 'good' && this.#limit < this.#most && ++this.#good >= this.#limit) {
      this.#limit++;
      this.#good = 0;
    }
    while (this.#running < this.#limit) {
      const next = this.#waiting.shift();
      if (!next) return;
      this.#running++;
      next();
    }
  }
}
