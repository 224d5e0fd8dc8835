import { isDeepStrictEqual } from 'node:util';
import { WorkingThread } from '../../threads.js';
import { yieldToOthers } from '../low-priority.js';
import { Budget } from './budget.js';
import type { LookAnswer, LookJob } from './jobs.js';
import { Lookers } from './lookers.js';
import type { FromObserver, Observed, ToObserver } from './messages.js';
import { ServerWatch } from './server-watch.js';
import { lookAtSlot } from './slot-look.js';

/** Milliseconds between looks at whether something changed. */
const TICK = 250;
/** Milliseconds between messages, and archives in each: what is said stays small. */
const SEND = 250;
const AT_A_TIME = 5;
/** Milliseconds after which a message goes without news, as a sign of life. */
const HEARTBEAT = 1000;
/** Receivers come first. */
const NICE = 2;
/** Milliseconds that a look at a disk, or a store, may hold others up while it only waits. */
const DISK_PATIENCE = 1500;
const STORE_PATIENCE = 150_000;
/** Threads for looks at disks, and at stores, with those that a disk holds. */
const MOST_DISKS = 8;
const MOST_STORES = 4;
/** Megabytes for what lives in a thread, and for what is young. */
const HEAP = { maxOldGenerationSizeMb: 512, maxYoungGenerationSizeMb: 16 };

/**
 * The process that looks at the archives of all servers. It writes nothing, and ends at once when its
 * supervisor is gone.
 */
function main(): void {
  const ignore = (): void => {};
  process.on('SIGINT', ignore).on('SIGTERM', ignore).on('SIGHUP', ignore);
  // A thread that a disk holds would keep any other end waiting.
  process.once('disconnect', () => process.kill(process.pid, 'SIGKILL'));
  yieldToOthers(NICE);
  const observer = new Observing(send);
  process.on('message', ({ servers }: ToObserver) => observer.watch(servers));
  send({ kind: 'ready' }, () => {});
}

function send(message: FromObserver, sent: () => void): void {
  if (process.connected) process.send?.(message, undefined, undefined, () => sent());
}

const started = () =>
  new WorkingThread<LookJob, LookAnswer>('serve/observer/look-worker.js', { resourceLimits: HEAP });

class Observing {
  readonly #send: typeof send;
  readonly #budget = new Budget(performance.now());
  readonly #shapes = new Budget(performance.now());
  readonly #disks = new Lookers({
    ...{ start: started, threads: 1, most: MOST_DISKS, atATime: 1, patience: DISK_PATIENCE },
  });
  readonly #stores = new Lookers({
    ...{ start: started, threads: 1, most: MOST_STORES, atATime: 4, patience: STORE_PATIENCE },
  });
  readonly #watches = new Map<string, ServerWatch>();
  /** Names of those of which something is to be told, the longest waiting first. */
  readonly #news = new Set<string>();
  #underWay = false;
  #sentAt = Number.NEGATIVE_INFINITY;

  constructor(to: typeof send) {
    this.#send = to;
    setInterval(() => {
      const now = performance.now();
      for (const watch of this.#watches.values()) watch.tick(now);
    }, TICK);
    setInterval(() => this.#tell(performance.now()), SEND);
  }

  watch(servers: readonly Observed[]): void {
    const wanted = new Map(servers.map((one) => [one.server.name, one]));
    for (const [name, watch] of this.#watches) {
      if (isDeepStrictEqual(wanted.get(name), watch.observed)) continue;
      watch.end();
      this.#watches.delete(name);
      this.#news.delete(name);
    }
    for (const [name, observed] of wanted) {
      if (this.#watches.has(name)) continue;
      const news = (): void => void this.#news.add(name);
      const watch = new ServerWatch({
        ...{ observed, news, budget: this.#budget, shapes: this.#shapes },
        look: (key, job, isUrgent) => {
          const isRemote = job.kind === 'backups' && job.store;
          return (isRemote ? this.#stores : this.#disks).look(key, job, isUrgent);
        },
        slot: async ({ server }) =>
          server.slot === undefined ? undefined : lookAtSlot(server, server.slot),
      });
      this.#watches.set(name, watch);
      watch.tick(performance.now());
    }
  }

  #tell(now: number): void {
    if (this.#underWay || (this.#news.size === 0 && now - this.#sentAt < HEARTBEAT)) return;
    const names = [...this.#news].slice(0, AT_A_TIME);
    for (const name of names) this.#news.delete(name);
    const archives = Object.fromEntries(
      names.flatMap((name) => {
        const status = this.#watches.get(name)?.status(now);
        return status ? [[name, status]] : [];
      }),
    );
    this.#underWay = true;
    this.#sentAt = now;
    this.#send(names.length === 0 ? { kind: 'alive' } : { kind: 'archives', archives }, () => {
      this.#underWay = false;
    });
  }
}

main();
