import type { Run } from './job.js';

/** Runs at a time over all servers: they share a machine. */
const MOST = 2;

/** Runs that wait, and those that are on. */
export class Queue {
  readonly #waiting: Run[] = [];
  readonly #running = new Set<Run>();

  get running(): readonly Run[] {
    return [...this.#running];
  }

  add(run: Run): void {
    this.#waiting.push(run);
  }

  /** Those that may begin now, the first that came first. They are on from now. */
  begin(mayBegin: (run: Run) => boolean): Run[] {
    const begun: Run[] = [];
    for (const run of [...this.#waiting]) {
      if (this.#running.size >= MOST) break;
      if (!this.#isFree(run) || !mayBegin(run)) continue;
      this.#waiting.splice(this.#waiting.indexOf(run), 1);
      this.#running.add(run);
      begun.push(run);
    }
    return begun;
  }

  /** One of a server at a time; and none where something expires, whoever's it is. */
  #isFree({ job: { plan } }: Run): boolean {
    return this.running.every(({ job: { plan: other } }) => {
      if (other.spec.server === plan.spec.server) return false;
      const expires = other.spec.job === 'expire' || plan.spec.job === 'expire';
      return other.at !== plan.at || !expires;
    });
  }

  ended(run: Run): void {
    this.#running.delete(run);
  }

  /** Takes out what waits. */
  remove(isMeant: (run: Run) => boolean): Run[] {
    const removed = this.#waiting.filter(isMeant);
    for (const run of removed) this.#waiting.splice(this.#waiting.indexOf(run), 1);
    return removed;
  }
}
