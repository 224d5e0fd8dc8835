import type { ErrorReport, LogEntry } from './status.js';
import type { FromWorker } from './worker-messages.js';

/** Milliseconds between looks at whether there is news: at most four messages a second. */
const TICK = 250;
/** Milliseconds after which a message goes without news, as a sign of life. */
const HEARTBEAT = 1000;
/** Lines that are kept while nobody takes them. */
const MOST_LINES = 200;

/** Sends one message and calls back when it is out. */
export type Send<Snapshot> = (message: FromWorker<Snapshot>, sent: () => void) => void;

/** What a process is at; how it last failed is a part of it. */
export type Reported = { error?: ErrorReport };

/**
 * Tells the supervisor how a process of its own is. Never more than one message is on its way: a
 * supervisor that is stopped, or busy, costs the process neither time nor memory.
 */
export class Reporter<Snapshot extends Reported> {
  readonly #send: Send<Snapshot>;
  readonly #amend: () => Partial<Snapshot>;
  readonly #timer: NodeJS.Timeout;
  #snapshot: Snapshot;
  #log: LogEntry[] = [];
  #lost = 0;
  #news = true;
  #underWay = false;
  #sentAt = Number.NEGATIVE_INFINITY;

  /** @param amend what is true only at the moment of sending */
  constructor(
    snapshot: Snapshot,
    send: Send<Snapshot>,
    amend: () => Partial<Snapshot> = () => ({}),
  ) {
    this.#snapshot = snapshot;
    this.#send = send;
    this.#amend = amend;
    this.#timer = setInterval(() => this.tick(performance.now()), TICK);
  }

  get snapshot(): Readonly<Snapshot> {
    return this.#snapshot;
  }

  change(changed: Partial<Snapshot>): void {
    this.#snapshot = { ...this.#snapshot, ...changed };
    this.#news = true;
  }

  /** The last error is over. */
  clearError(): void {
    const { error, ...rest } = this.#snapshot;
    this.#snapshot = rest as Snapshot;
    this.#news = true;
  }

  log(entry: LogEntry): void {
    this.#log.push(entry);
    if (this.#log.length > MOST_LINES) {
      this.#log.shift();
      this.#lost += 1;
    }
    this.#news = true;
  }

  /** @internal */
  tick(now: number): void {
    if (this.#underWay || !(this.#news || now - this.#sentAt >= HEARTBEAT)) return;
    this.#underWay = true;
    this.#news = false;
    this.#sentAt = now;
    const snapshot = this.#now();
    const news = { snapshot, log: this.#log, lost: this.#lost };
    this.#log = [];
    this.#lost = 0;
    this.#send({ kind: 'news', ...news }, () => {
      this.#underWay = false;
    });
  }

  /** Sends the rest and calls back when it is out. */
  end(error: ErrorReport | undefined, sent: () => void): void {
    clearInterval(this.#timer);
    const last = { snapshot: this.#now(), log: this.#log, ...(error ? { error } : {}) };
    this.#send({ kind: 'end', ...last }, sent);
  }

  #now(): Snapshot {
    return { ...this.#snapshot, ...this.#amend() };
  }
}
