import { type FSWatcher, watch } from 'node:fs';
import { abortableDelay } from '../delay.js';

/**
 * Waits for new names in a directory. What the system does not tell, on a network file system say, a
 * look every so often finds.
 */
export class Changes implements Disposable {
  readonly #interval: number;
  #watcher: FSWatcher | undefined;
  #changed = new AbortController();

  /** @param directory undefined: nothing tells, there are only the looks */
  constructor(directory: string | undefined, interval: number) {
    this.#interval = interval;
    if (directory !== undefined) this.#watch(directory);
  }

  #watch(directory: string): void {
    try {
      // "change" is what every write of a receiver is.
      this.#watcher = watch(directory, { persistent: false }, (event) => {
        if (event === 'rename') this.wake();
      });
      this.#watcher.on('error', () => this.#watcher?.close());
    } catch {
      // No inotify left, for example.
    }
  }

  /** Ends the wait that is under way, or the next one. */
  wake(): void {
    this.#changed.abort();
  }

  /** Resolves when something may have changed since the wait before ended, or when aborted. */
  async next(signal: AbortSignal): Promise<void> {
    await abortableDelay(this.#interval, AbortSignal.any([signal, this.#changed.signal]));
    if (this.#changed.signal.aborted) this.#changed = new AbortController();
  }

  [Symbol.dispose](): void {
    this.#watcher?.close();
  }
}
