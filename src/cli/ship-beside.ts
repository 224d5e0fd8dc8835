import { type ChildProcess, spawn } from 'node:child_process';
import { besideEnvironment } from '../beside.js';
import { abortableDelay } from '../delay.js';
import type { Output } from './output.js';

/** Milliseconds before a process that ended is started again, doubling up to the longest. */
const FIRST = 1000;
const LONGEST = 60_000;
/** Milliseconds that a run must last to count as one that went well. */
const WELL = 60_000;
/** Milliseconds for what is left to be shipped when the receiver has ended. */
const REST = 30_000;

/** As bin/walkeep starts it: garbage of compression is collected soon. */
const SMALL = '--max-semi-space-size=1';

/**
 * Runs `walkeep ship` as a process of its own beside a receiver: whatever becomes of it, or of a
 * store, no WAL waits for it. It is started again whenever it ends.
 */
export class ShipBeside {
  readonly #args: readonly string[];
  readonly #output: Output;
  readonly #ending = new AbortController();
  readonly #running: Promise<void>;
  #child: ChildProcess | undefined;

  /** @param args of `ship`: options, source and places */
  constructor(args: readonly string[], output: Output) {
    this.#args = args;
    this.#output = output;
    this.#running = this.#run();
  }

  async #run(): Promise<void> {
    for (let failures = 0; !this.#ending.signal.aborted; ) {
      const began = performance.now();
      const how = await this.#once();
      if (this.#ending.signal.aborted) return;
      failures = performance.now() - began > WELL ? 1 : failures + 1;
      const wait = Math.min(LONGEST, FIRST * 2 ** (failures - 1));
      this.#output.warning(
        `"walkeep ship" ended with ${how}; it is started again in ${wait / 1000} s`,
        'Receiving goes on. What was not shipped stays in the directory.',
      );
      await abortableDelay(wait, this.#ending.signal);
    }
  }

  /** Runs it to its end; says how that was. */
  #once(): Promise<string> {
    return new Promise((resolve) => {
      const node = [SMALL, ...process.execArgv, process.argv[1]!, 'ship', ...this.#args];
      const child = spawn(process.execPath, node, {
        // The channel tells it when this process ends, however that happens.
        stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
        env: besideEnvironment(process.env),
      });
      this.#child = child;
      child.once('error', (error) => resolve(error.message));
      child.once('exit', (code, signal) => resolve(signal ?? `exit code ${code}`));
    });
  }

  /** Lets it ship what is left, and ends it if that takes too long. */
  async end(): Promise<void> {
    this.#ending.abort();
    const child = this.#child;
    if (child?.connected) child.disconnect();
    const late = setTimeout(() => {
      this.#output.warning(
        `not all was shipped within ${REST / 1000} s`,
        'The rest is shipped after the next start.',
      );
      child?.kill('SIGKILL');
    }, REST);
    await this.#running;
    clearTimeout(late);
  }
}
