import type { WorkConfig } from './config/config.js';
import type { LogEntry, WorkStatus } from './status.js';

/** What "serve" does for its servers beside receiving: it never waits for any of it. */
export interface Part {
  /**
   * Makes the work this, at the start and when the configuration changed: what did not change goes on
   * untouched.
   */
  apply(work: readonly WorkConfig[]): Promise<void>;
  /** Of one server, from memory. */
  status(server: string): WorkStatus;
  /** Somebody has looked at what is held of a server: it goes on. */
  resume?(server: string): void;
  /** Ends all of its processes. */
  end(): Promise<void>;
}

export type Tell = (entry: LogEntry) => void;
