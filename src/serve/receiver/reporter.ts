import type { ErrorReport, LogEntry, ReceiverSnapshot } from '../status.js';
import type { FromReceiver } from './messages.js';

/** Milliseconds between looks at whether there is news: at most four messages a second. */
const TICK = 250;
/** Milliseconds after which a message goes without news, as a sign of life. */
const HEARTBEAT = 1000;
/** Lines that are kept while nobody takes them. */
const MOST_LINES = 200;

/** Sends one message and calls back when it is out. */
export type Send = (message: FromReceiver, sent: () => void) => void;

/**
 * Tells the supervisor how a receiver is. Never more than one message is on its way: one that is
 * stopped, or busy, costs the receiver neither time nor memory.
 */
export class Reporter {
  readonly #send: Send;
  readonly #amend: () => Partial<ReceiverSnapshot>;
  readonly #timer: NodeJS.Timeout;
  #snapshot: ReceiverSnapshot = { state: 'connecting', segments: 0, connections: 0 };
  #log: LogEntry[] = [];
  #lost = 0;
  #news = true;
  #underWay = false;
  #sentAt = Number.NEGATIVE_INFINITY;

  /** @param amend what is true only at the moment of sending */
  constructor(send: Send, amend: () => Partial<ReceiverSnapshot> = () => ({})) {
    this.#send = send;
    this.#amend = amend;
    this.#timer = setInterval(() => this.tick(performance.now()), TICK);
  }

  get snapshot(): Readonly<ReceiverSnapshot> {
    return this.#snapshot;
  }

  change(changed: Partial<ReceiverSnapshot>): void {
    this.#snapshot = { ...this.#snapshot, ...changed };
    this.#news = true;
  }

  /** The last error is over. */
  clearError(): void {
    const { error, ...rest } = this.#snapshot;
    this.#snapshot = rest;
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
    const snapshot = { ...this.#snapshot, ...this.#amend() };
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
    this.#send({ kind: 'end', log: this.#log, ...(error ? { error } : {}) }, sent);
  }
}
