import { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import { InternalError, WalkeepError } from '../../src/errors.js';
import type { Target } from './target.js';

/** Longest time that one input may take, milliseconds. */
export const LIMIT = 30_000;

/**
 * Ends this process if an input blocks it for longer than LIMIT: an endless loop leaves no other
 * way to report. The main thread counts inputs in `beat`.
 */
const WATCHDOG = `
const { workerData: { shared, limit, pid } } = require('node:worker_threads');
const beat = new Int32Array(shared);
let last = -1;
let since = Date.now();
setInterval(() => {
  const now = Atomics.load(beat, 0);
  if (now !== last || Atomics.load(beat, 1) === 0) [last, since] = [now, Date.now()];
  else if (Date.now() - since > limit) {
    require('node:fs').writeSync(2, 'fuzzing: input ' + now + ' hangs\\n');
    process.kill(pid, 'SIGKILL');
  }
}, 500);
`;

/** Counts inputs and what escaped; watches that none hangs. */
export class Watch {
  inputs = 0;
  /** Longest time between the beginnings of two inputs of one target, milliseconds. */
  longest = 0;
  /** Errors that nobody handled: there must be none. */
  readonly escaped: unknown[] = [];
  readonly #beat = new Int32Array(new SharedArrayBuffer(8));
  readonly #worker: Worker;
  #beganAt = 0;
  readonly #note = (error: unknown): void => {
    this.escaped.push(error);
  };

  constructor(limit = LIMIT) {
    process.on('unhandledRejection', this.#note);
    process.on('uncaughtException', this.#note);
    const workerData = { shared: this.#beat.buffer, limit, pid: process.pid };
    this.#worker = new Worker(WATCHDOG, { eval: true, workerData });
    this.#worker.unref();
  }

  /** An input begins. */
  readonly began = (): void => {
    this.inputs += 1;
    Atomics.add(this.#beat, 0, 1);
    this.#measure();
  };

  #measure(): void {
    const now = performance.now();
    this.longest = Math.max(this.longest, now - this.#beganAt);
    this.#beganAt = now;
  }

  async run(target: Target, count: number, seed: number): Promise<void> {
    Atomics.store(this.#beat, 1, 1);
    this.#beganAt = performance.now();
    try {
      await target.run(count, seed, this.began);
      this.#measure();
    } finally {
      Atomics.store(this.#beat, 1, 0);
    }
  }

  async close(): Promise<void> {
    process.off('unhandledRejection', this.#note);
    process.off('uncaughtException', this.#note);
    await this.#worker.terminate();
  }
}

/** A target that has no setting up of its own. `check` throws if a promise is broken. */
export function target<T>(
  name: string,
  share: number,
  input: fc.Arbitrary<T>,
  check: (input: T) => void,
): Target {
  return {
    name,
    share,
    run: async (numRuns, seed, began) => {
      const property = fc.property(input, (value) => {
        began();
        check(value);
      });
      fc.assert(property, { numRuns, seed });
    },
  };
}

/** The same with promises, each input within LIMIT. `setUp` gives the check and how to clean up. */
export function asyncTarget<T>(
  name: string,
  share: number,
  input: fc.Arbitrary<T>,
  setUp: () => Promise<{ check: (input: T) => Promise<void>; done?: () => Promise<void> }>,
): Target {
  return {
    name,
    share,
    run: async (numRuns, seed, began) => {
      const { check, done } = await setUp();
      try {
        const property = fc.asyncProperty(input, async (value) => {
          began();
          await check(value);
        });
        await fc.assert(property, { numRuns, seed, timeout: LIMIT });
      } finally {
        await done?.();
      }
    },
  };
}

/** Throws unless the error is one of ours, and not our own defect. */
export function expectTyped(error: unknown): void {
  if (!(error instanceof WalkeepError) || error instanceof InternalError) throw error;
  if (typeof error.code !== 'string' || error.message === '') throw error;
}

/** Runs it; an error must be a typed one. Undefined then. */
export function typed<T>(act: () => T): T | undefined {
  try {
    return act();
  } catch (error) {
    expectTyped(error);
    return undefined;
  }
}

/** `typed` for promises. */
export async function typedAsync<T>(act: () => Promise<T>): Promise<T | undefined> {
  try {
    return await act();
  } catch (error) {
    expectTyped(error);
    return undefined;
  }
}
