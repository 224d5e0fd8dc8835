import type { Client } from 'pg';
import type { PostgresServer } from './postgres.js';
import { delay } from './wait.js';

export interface CommitClientsOptions {
  /** Default 4. */
  sessions?: number;
  /** Milliseconds between two commits of a session. Default 0. */
  pauseMs?: number;
  /** Called for each confirmed commit before it counts as confirmed. */
  onConfirmed?: (n: number) => Promise<void>;
}

/** Sessions that insert numbered rows, each in a commit of its own, and log what was confirmed. */
export class CommitClients {
  readonly confirmed: number[] = [];
  /** Commits that were sent and not confirmed: they may be there or not. */
  unconfirmed = 0;
  #next = 0;
  #stopped = false;
  readonly #done: Promise<unknown>;
  readonly #server: () => PostgresServer;
  readonly #options: CommitClientsOptions;

  /** @param server where to commit: asked again for each new session */
  constructor(server: () => PostgresServer, options: CommitClientsOptions = {}) {
    this.#server = server;
    this.#options = options;
    const { sessions = 4 } = options;
    this.#done = Promise.all(Array.from({ length: sessions }, () => this.#run()));
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      // A server that is down, or starting up, is tried again; who waits for commits gives up.
      await this.#session().catch(() => delay(10));
    }
  }

  async #session(): Promise<void> {
    const client = await this.#server().client();
    try {
      while (!this.#stopped) {
        await this.#commit(client);
        if (this.#options.pauseMs) await delay(this.#options.pauseMs);
      }
    } finally {
      await client.end().catch(() => {});
    }
  }

  async #commit(client: Client): Promise<void> {
    const n = this.#next++;
    let warned = false;
    const onNotice = () => {
      warned = true;
    };
    client.on('notice', onNotice);
    this.unconfirmed += 1;
    await client.query('INSERT INTO t VALUES ($1, repeat(md5($1::int::text), 80))', [n]);
    client.off('notice', onNotice);
    // The wait was cancelled: committed here, perhaps not replicated.
    if (warned) return;
    await this.#options.onConfirmed?.(n);
    this.unconfirmed -= 1;
    this.confirmed.push(n);
  }

  /** Ends the sessions; those that still wait need their server to go. */
  stop(): Promise<unknown> {
    this.#stopped = true;
    return this.#done;
  }
}
