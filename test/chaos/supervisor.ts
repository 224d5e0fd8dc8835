import type { CliRun } from '../support/cli.js';
import { delay, waitFor } from '../support/wait.js';

/** How a receiver ended that nobody had told to. */
export interface OwnExit {
  code: number | null;
  /** Its last error message. */
  error: string;
  /** The end of all that it and those before it said. */
  said: string;
}

const LAST_SAID = 6000;

/**
 * What systemd does with `Restart=always`: starts the receiver again whenever it ends. Nothing else
 * is ever done for it.
 */
export class Supervisor {
  /** Starts behind the first one. */
  restarts = 0;
  readonly ownExits: OwnExit[] = [];
  readonly #start: () => CliRun;
  #run: CliRun;
  #earlier = '';
  #told = false;
  #held = false;

  /** @param start starts the receiver once */
  constructor(start: () => CliRun) {
    this.#start = start;
    this.#run = this.#watch(start());
  }

  #watch(run: CliRun): CliRun {
    run.exit.then(async ({ code, signal }) => {
      if (!this.#told) {
        const error = run.stderr.split('\n').findLast((line) => line.includes('error: '));
        const said = (this.#earlier + run.stderr).slice(-LAST_SAID);
        this.ownExits.push({ code, error: error ?? `signal ${signal}`, said });
      }
      this.#told = false;
      await delay(100);
      if (!this.#held) this.#again();
    });
    return run;
  }

  #again(): void {
    this.restarts += 1;
    this.#earlier += this.#run.stderr;
    this.#run = this.#watch(this.#start());
  }

  /** All that the receivers said so far. */
  get said(): string {
    return this.#earlier + this.#run.stderr;
  }

  get pid(): number {
    return this.#run.pid;
  }

  get running(): boolean {
    return this.#run.running;
  }

  /** Waits until something is said that was not said when `since` (a length of `said`) was. */
  async hears(pattern: RegExp, since: number, timeoutMs = 60_000): Promise<void> {
    await waitFor(() => pattern.test(this.said.slice(since)), {
      what: `walkeep to say ${pattern}`,
      timeoutMs,
    });
  }

  /** Sends a signal that ends the receiver; resolves when it has ended. */
  async end(signal: NodeJS.Signals): Promise<void> {
    const run = this.#run;
    if (!run.running) return;
    this.#told = true;
    await run.stop(signal);
  }

  /** Ends the receiver and does not start another one before `release`. */
  async hold(signal: NodeJS.Signals): Promise<void> {
    this.#held = true;
    await this.end(signal);
    await waitFor(() => !this.#run.running);
    // Also the start that an earlier end had under way.
    await delay(150);
  }

  release(): void {
    this.#held = false;
    this.#again();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#held = true;
    await this.end('SIGKILL');
  }
}
