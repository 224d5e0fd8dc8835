import { isDeepStrictEqual } from 'node:util';
import type { NotifyConfig } from '../config/config.js';
import type { Tell } from '../part.js';
import type { ServerStatus, TroubleStatus } from '../status.js';
import { Heartbeat } from './heartbeat.js';
import { type Changes, type PresentTrouble, TroubleWatch } from './watch.js';
import { Webhook } from './webhook.js';

/** Milliseconds between looks at all servers. */
const LOOK = 1000;

/** What is asked for at each look. */
export interface NotifierFacts {
  servers(): ServerStatus[];
  configIsGood(): boolean;
}

/** Looks for troubles, tells the log of them, and whom the configuration names. Nothing waits for it. */
export class Notifier {
  readonly #facts: NotifierFacts;
  readonly #tell: Tell;
  readonly #watch = new TroubleWatch();
  readonly #begun = Date.now();
  #heartbeat: Heartbeat | undefined;
  #webhook: Webhook | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(facts: NotifierFacts, tell: Tell) {
    this.#facts = facts;
    this.#tell = tell;
  }

  /** Makes it this; what did not change goes on untouched. */
  apply({ heartbeat, webhook }: NotifyConfig): void {
    if (!isDeepStrictEqual(this.#heartbeat?.options, heartbeat)) {
      this.#heartbeat?.end();
      this.#heartbeat = heartbeat && new Heartbeat(heartbeat, this.#tell);
    }
    if (!isDeepStrictEqual(this.#webhook?.options, webhook)) {
      this.#webhook?.end();
      this.#webhook = webhook && new Webhook(webhook, this.#tell);
      // Of what it was not told.
      this.#webhook?.note({ begun: this.#watch.present, over: [] });
    }
    this.#timer ??= setInterval(() => this.look(), LOOK);
  }

  /** Of one server, the worst first. */
  troubles(name: string): TroubleStatus[] {
    return this.#watch.present
      .filter(({ server }) => server === name)
      .map(({ id, server, ...trouble }) => trouble);
  }

  /** Takes note of how all are now. */
  look(): void {
    const servers = this.#facts.servers();
    const configIsGood = this.#facts.configIsGood();
    const clock = performance.now();
    const around = { configIsGood, now: Date.now(), begun: this.#begun };
    const changes = this.#watch.look(servers, around, clock);
    this.#log(changes);
    this.#webhook?.note(changes);
    this.#heartbeat?.look(servers, clock);
  }

  end(): void {
    clearInterval(this.#timer);
    this.#heartbeat?.end();
    this.#webhook?.end();
  }

  #log({ begun, over }: Changes): void {
    const about = ({ server }: PresentTrouble): { server?: string } =>
      server === undefined ? {} : { server };
    for (const trouble of begun) {
      const { kind, severity, text } = trouble;
      const level = severity === 'critical' ? 'error' : 'warning';
      this.#tell({ level, event: 'trouble', message: `${kind}: ${text}`, ...about(trouble) });
    }
    for (const trouble of over) {
      const message = `${trouble.kind}: over: ${trouble.text}`;
      this.#tell({ level: 'info', event: 'trouble-over', message, ...about(trouble) });
    }
  }
}
