import { hostname } from 'node:os';
import { abortableDelay } from '../../delay.js';
import type { Trouble } from '../config/config.js';
import { readSecretFile } from '../config/secret-file.js';
import type { Tell } from '../part.js';
import { Line } from './line.js';
import { send } from './send.js';
import type { Changes, PresentTrouble } from './watch.js';

/** Milliseconds before a try that follows one that failed, doubling up to the longest. */
const FIRST = 1000;
const LONGEST = 300_000;
/** Messages that wait, of which each trouble has one. */
const MOST = 500;
/** Milliseconds after which a message is no news any more. */
const OLD = 24 * 3_600_000;

export interface WebhookOptions {
  urlFile: string;
  on: readonly Trouble[];
}

/** What is sent, as JSON. What may follow later has new keys; another version has other ones. */
export interface WebhookMessage {
  version: 1;
  /** `begin` comes again with the same id where it became worse. */
  event: 'begin' | 'end';
  /** Of the trouble: the same in its begin and its end. */
  id: string;
  /** Null: it is of all. */
  server: string | null;
  kind: Trouble;
  /** Which of several: a store, a member, a job. */
  about: string | null;
  severity: 'critical' | 'warning';
  text: string;
  /** Since when it is so, when this was said, as ISO 8601; of an end: when it was over. */
  since: string;
  at: string;
  /** The machine that says so. */
  host: string;
}

interface Waiting {
  message: WebhookMessage;
  since: number;
  /** It may have got there. */
  tried: boolean;
}

/** Tells an address of troubles: of each the newest, as long as it takes. */
export class Webhook {
  readonly options: WebhookOptions;
  readonly #line: Line;
  readonly #tell: Tell;
  readonly #first: number;
  readonly #stop = new AbortController();
  readonly #queue = new Map<string, Waiting>();
  #sending: Promise<void> | undefined;
  #lost = 0;

  /** @param first milliseconds before the second try */
  constructor(options: WebhookOptions, tell: Tell, first = FIRST) {
    this.options = options;
    this.#tell = tell;
    this.#first = first;
    this.#line = new Line(tell, 'webhook', 'the webhook');
  }

  /** What waits to be told. */
  get waiting(): number {
    return this.#queue.size;
  }

  note({ begun, over }: Changes, now = Date.now()): void {
    for (const trouble of begun) this.#add('begin', trouble, now);
    for (const trouble of over) this.#add('end', trouble, now);
    if (this.#queue.size > 0) this.#sending ??= this.#sendAll();
  }

  end(): void {
    this.#stop.abort();
  }

  #add(event: WebhookMessage['event'], trouble: PresentTrouble, now: number): void {
    const { id, server = null, kind, about = null, severity, text, since } = trouble;
    if (!this.options.on.includes(kind)) return;
    const before = this.#queue.get(id);
    this.#queue.delete(id);
    // Nobody heard of it: that it is over is none, either.
    if (event === 'end' && before?.message.event === 'begin' && !before.tried) return;
    const message: WebhookMessage = {
      ...{ version: 1, event, id, server, kind, about, severity, text, since },
      ...{ at: new Date(now).toISOString(), host: hostname() },
    };
    this.#queue.set(id, { message, since: performance.now(), tried: before?.tried ?? false });
    const [oldest] = this.#queue.keys();
    if (this.#queue.size > MOST && oldest !== undefined) this.#drop(oldest);
  }

  #drop(id: string): void {
    this.#queue.delete(id);
    this.#lost += 1;
  }

  async #sendAll(): Promise<void> {
    // Who notes several has them all in the queue first.
    await Promise.resolve();
    const { signal } = this.#stop;
    let wait = this.#first;
    for (;;) {
      const [next] = this.#queue;
      if (!next || signal.aborted) break;
      if (await this.#sendOne(...next)) {
        wait = this.#first;
        continue;
      }
      await abortableDelay(wait * (0.5 + Math.random() / 2), signal);
      wait = Math.min(LONGEST, 2 * wait);
    }
    this.#sending = undefined;
  }

  async #sendOne(id: string, waiting: Waiting): Promise<boolean> {
    const { signal } = this.#stop;
    waiting.tried = true;
    try {
      const url = await readSecretFile(this.options.urlFile);
      await send({ url, body: JSON.stringify(waiting.message), signal });
    } catch (e) {
      if (signal.aborted) return false;
      this.#line.failed(e);
      const isNewest = this.#queue.get(id) === waiting;
      if (isNewest) {
        this.#queue.delete(id);
        // Behind the others: it may be the one that is not taken.
        if (performance.now() - waiting.since < OLD) this.#queue.set(id, waiting);
        else this.#lost += 1;
      }
      return false;
    }
    if (this.#queue.get(id) === waiting) this.#queue.delete(id);
    this.#line.well();
    if (this.#lost > 0) {
      const message = `${this.#lost} messages for the webhook were given up`;
      this.#tell({ level: 'warning', event: 'webhook-lost', message });
      this.#lost = 0;
    }
    return true;
  }
}
