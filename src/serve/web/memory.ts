import type { LogEntry, ServerStatus } from '../status.js';
import type { Lag, Noted, Remembered } from './page.js';

/** Milliseconds between samples, and how many are kept: an hour. */
export const SAMPLE = 5000;
const SAMPLES = 720;
/** Lines of the log that are kept of each server, and of none. */
const ENTRIES = 50;

/** What was lately: bounded, and gone with the process. */
export class Memory implements Remembered {
  readonly #lag = new Map<string, Lag[]>();
  readonly #events = new Map<string | undefined, Noted[]>();

  note(entry: LogEntry, at = Date.now()): void {
    const { server } = entry;
    const own = this.#events.get(server) ?? [];
    this.#events.set(server, own);
    own.push({ at, entry });
    if (own.length > ENTRIES) own.shift();
  }

  sample(servers: readonly ServerStatus[], at = Date.now()): void {
    for (const { name, rpoSeconds } of servers) {
      const own = this.#lag.get(name) ?? [];
      this.#lag.set(name, own);
      own.push({ at, rpoSeconds });
      if (own.length > SAMPLES) own.shift();
    }
    // Who is gone is forgotten.
    const names = new Set<string | undefined>(servers.map(({ name }) => name));
    for (const name of this.#lag.keys()) if (!names.has(name)) this.#lag.delete(name);
    for (const name of this.#events.keys()) {
      if (name !== undefined && !names.has(name)) this.#events.delete(name);
    }
  }

  events(server?: string): readonly Noted[] {
    return this.#events.get(server) ?? [];
  }

  lag(server: string): readonly Lag[] {
    return this.#lag.get(server) ?? [];
  }
}
