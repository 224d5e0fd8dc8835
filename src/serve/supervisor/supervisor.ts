import { isDeepStrictEqual } from 'node:util';
import type { ServerConfig } from '../config/config.js';
import { watchOver } from '../life.js';
import { serverNamed } from '../named.js';
import type { LogEntry, ReceivedStatus } from '../status.js';
import { type Launch, launchReceiver } from './child.js';
import { Supervised } from './supervised.js';

/** What a new configuration changed, by name of the servers. */
export interface Applied {
  started: string[];
  restarted: string[];
  stopped: string[];
  unchanged: string[];
}

/** Keeps a receiver running for each server. It does no WAL work, and none of them waits for it. */
export class Supervisor {
  readonly #tell: (entry: LogEntry) => void;
  readonly #launch: Launch;
  readonly #servers = new Map<string, Supervised>();
  #timer: NodeJS.Timeout | undefined;

  constructor(tell: (entry: LogEntry) => void, launch: Launch = launchReceiver) {
    this.#tell = tell;
    this.#launch = launch;
  }

  /**
   * Makes the servers these: who is unchanged goes on untouched; whose configuration changed ends
   * before any other begins, for a directory may have gone from one to another.
   */
  async apply(configs: readonly ServerConfig[]): Promise<Applied> {
    this.#timer ??= watchOver(() => this.#servers.values());
    const wanted = new Map(configs.map((config) => [config.name, config]));
    const applied: Applied = { started: [], restarted: [], stopped: [], unchanged: [] };
    const ending: Promise<void>[] = [];
    for (const [name, server] of this.#servers) {
      const config = wanted.get(name);
      if (isDeepStrictEqual(config, server.config)) {
        applied.unchanged.push(name);
        continue;
      }
      (config ? applied.restarted : applied.stopped).push(name);
      ending.push(server.end());
    }
    const old = new Map(this.#servers);
    await Promise.all(ending);
    for (const name of applied.stopped) this.#servers.delete(name);
    for (const [name, config] of wanted) {
      if (applied.unchanged.includes(name)) continue;
      if (!applied.restarted.includes(name)) applied.started.push(name);
      const options = { config, launch: this.#launch, tell: this.#tell };
      const known = old.get(name);
      // As it is now that its process is gone: with what that told at its end, and what somebody asked.
      const before = known && {
        ...{ paused: known.isPaused, safeAt: known.safeAt, counted: known.counted },
      };
      this.#servers.set(name, new Supervised({ ...options, ...before }));
    }
    return applied;
  }

  /** Of all, or of one. @throws UsageError if there is none of that name */
  status(name?: string): ReceivedStatus[] {
    if (name !== undefined) return [this.#server(name).status];
    return [...this.#servers.values()].map((server) => server.status);
  }

  async pause(name: string): Promise<void> {
    const server = this.#server(name);
    this.#tell({ level: 'info', event: 'pause', message: 'paused', server: name });
    await server.pause();
  }

  resume(name: string, options: { acceptGap?: boolean } = {}): void {
    this.#server(name).resume(options);
    this.#tell({ level: 'info', event: 'resume', message: 'resumed', server: name });
  }

  /** Ends all; resolves when every process is gone. */
  async end(): Promise<void> {
    clearInterval(this.#timer);
    await Promise.all([...this.#servers.values()].map((server) => server.end()));
  }

  #server(name: string): Supervised {
    return serverNamed(this.#servers, name);
  }
}
