import type { HoldTiming } from '../../src/archive/backups/hold.js';
import { MemoryObjects, MemoryStore } from '../../src/store/memory.js';
import { randomNumbers } from './archives.js';

/** One turn of the event loop: what waits for nothing else has gone on. */
const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

interface Waiting {
  who: string;
  go(): void;
  /** By the clock that nobody sets; a call on the store is always due. */
  due: number;
  /** What waits idly does not keep the run going. */
  idle: boolean;
}

/**
 * Several who work on one store in memory, of whom one at a time makes one call: which one, a seed
 * decides. Time goes on only when nobody has a call to make, or by chance. The clock of the place is
 * one that can be set.
 */
export class Interleaving {
  readonly objects: MemoryObjects;
  readonly #random: (below: number) => number;
  readonly #waiting: Waiting[] = [];
  readonly trace: string[] = [];
  #mono = 0;
  /** Milliseconds that the clock of the place is ahead of time. */
  ahead = 0;
  /** Told before each call that is let through. */
  onCall: (who: string, call: string) => void = () => {};

  constructor(seed: number) {
    const next = randomNumbers(seed);
    this.#random = (below) => Math.floor(next() * below);
    this.objects = new MemoryObjects(() => Date.UTC(2026, 10, 1) + this.#mono + this.ahead);
  }

  /** Less than this, from the seed. */
  random(below: number): number {
    return this.#random(below);
  }

  get mono(): number {
    return this.#mono;
  }

  /** The same store as another sees it. */
  store(who: string): MemoryStore {
    const store = new MemoryStore({ objects: this.objects });
    const gate = (call: string) => this.#wait({ who: `${who}: ${call}`, due: 0, idle: false });
    for (const op of ['create', 'get', 'head', 'remove'] as const) {
      const plain = store[op].bind(store) as (...args: unknown[]) => Promise<unknown>;
      Object.assign(store, {
        [op]: async (...args: unknown[]) => {
          await gate(`${op} ${args[0]}`);
          return plain(...args);
        },
      });
    }
    const list = store.list.bind(store);
    store.list = async function* (...args: Parameters<typeof list>) {
      await gate(`list ${args[0]}`);
      yield* list(...args);
    };
    return store;
  }

  timing(who: string, rest: Partial<HoldTiming> = {}): HoldTiming {
    return {
      ...{ renew: 60_000, dead: 900_000, observe: 150_000, poll: 2_000 },
      wait: (ms, signal, idle = false) =>
        this.#wait({ who: `${who}: wait`, due: this.#mono + ms, idle }, signal),
      ...rest,
    };
  }

  /** Passes time for one of them. */
  pass(who: string, ms: number): Promise<void> {
    return this.#wait({ who: `${who}: wait`, due: this.#mono + ms, idle: false });
  }

  #wait(waiting: Omit<Waiting, 'go'>, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const entry: Waiting = { ...waiting, go: resolve };
      this.#waiting.push(entry);
      signal?.addEventListener('abort', () => {
        const at = this.#waiting.indexOf(entry);
        if (at >= 0) this.#waiting.splice(at, 1);
        reject(signal.reason);
      });
    });
  }

  /** Until all of them have ended. */
  async run(actors: readonly Promise<unknown>[]): Promise<void> {
    let ended = false;
    const all = Promise.allSettled(actors).then((results) => {
      ended = true;
      return results;
    });
    for (;;) {
      await turn();
      if (ended) break;
      const due = this.#waiting.filter((w) => w.due <= this.#mono);
      const later = this.#waiting.filter((w) => w.due > this.#mono);
      if (due.length === 0 || (later.length > 0 && this.#random(50) === 0)) {
        if (later.every((w) => w.idle) && due.length === 0) throw new Error('nobody goes on');
        this.#mono = Math.max(this.#mono, Math.min(...later.map((w) => w.due)));
        continue;
      }
      const next = due[this.#random(due.length)] as Waiting;
      this.#waiting.splice(this.#waiting.indexOf(next), 1);
      this.trace.push(next.who);
      this.onCall(...(next.who.split(': ') as [string, string]));
      next.go();
    }
    for (const result of await all) if (result.status === 'rejected') throw result.reason;
  }
}
