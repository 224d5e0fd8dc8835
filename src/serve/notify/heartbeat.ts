import { readSecretFile } from '../config/secret-file.js';
import type { Tell } from '../part.js';
import type { ServerStatus } from '../status.js';
import { Line } from './line.js';
import { send } from './send.js';

/** Milliseconds after which one that failed is sent again, doubling up to the usual time. */
const SOON = 5000;

export interface HeartbeatOptions {
  urlFile: string;
  /** Milliseconds. */
  every: number;
}

/**
 * Whether nothing more could be lost than is allowed, of any server.
 * @returns false too if there is none: then nothing is kept
 */
export function isMet(servers: readonly ServerStatus[]): boolean {
  const met = ({ state, rpoSeconds, rpoLimitSeconds }: ServerStatus): boolean =>
    state !== 'held' && rpoSeconds <= rpoLimitSeconds;
  return servers.length > 0 && servers.every(met);
}

/** Asks an address at times while all is well, so that its absence is told by who is asked. */
export class Heartbeat {
  readonly options: HeartbeatOptions;
  readonly #line: Line;
  readonly #stop = new AbortController();
  #next = Number.NEGATIVE_INFINITY;
  #failures = 0;
  #underWay = false;

  constructor(options: HeartbeatOptions, tell: Tell) {
    this.options = options;
    this.#line = new Line(tell, 'heartbeat', 'the heartbeat');
  }

  /** Sends one if it is due. @param clock of `performance.now()` */
  look(servers: readonly ServerStatus[], clock: number): void {
    if (this.#underWay || clock < this.#next || !isMet(servers)) return;
    const { every } = this.options;
    this.#underWay = true;
    this.#next = clock + every;
    void this.#send().then((sent) => {
      this.#underWay = false;
      this.#failures = sent ? 0 : this.#failures + 1;
      if (!sent) {
        this.#next = performance.now() + Math.min(every, SOON * 2 ** (this.#failures - 1));
      }
    });
  }

  end(): void {
    this.#stop.abort();
  }

  async #send(): Promise<boolean> {
    const { signal } = this.#stop;
    try {
      await send({ url: await readSecretFile(this.options.urlFile), signal });
      this.#line.well();
      return true;
    } catch (e) {
      if (!signal.aborted) this.#line.failed(e);
      return false;
    }
  }
}
