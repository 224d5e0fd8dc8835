import { isDeepStrictEqual } from 'node:util';
import type { WorkConfig } from '../config/config.js';
import { watchOver } from '../life.js';
import type { Part, Tell } from '../part.js';
import type { WorkStatus } from '../status.js';
import { type LaunchShipper, launchShipper } from './child.js';
import { ShippedStore } from './shipped-store.js';
import { taskOf } from './task.js';

/** Ships what is received for each server to each of its stores: one process for each. */
export class Shipping implements Part {
  readonly #tell: Tell;
  readonly #launch: LaunchShipper;
  /** By server, then by the store's name. */
  #servers = new Map<string, Map<string, ShippedStore>>();
  #timer: NodeJS.Timeout | undefined;

  constructor(tell: Tell, launch: LaunchShipper = launchShipper) {
    this.#tell = tell;
    this.#launch = launch;
  }

  /** What changed or went ends before anything begins: two processes never ship to one place. */
  async apply(work: readonly WorkConfig[]): Promise<void> {
    const before = this.#servers;
    const kept = new Set<ShippedStore>();
    const wanted = work.flatMap((config) =>
      config.stores.map((store) => {
        const server = config.server.name;
        const task = taskOf(config, store);
        const known = before.get(server)?.get(store.name);
        const same = known && isDeepStrictEqual(known.task, task) ? known : undefined;
        if (same) kept.add(same);
        return { server, task, known, same };
      }),
    );
    await Promise.all(all(before).flatMap((store) => (kept.has(store) ? [] : [store.end()])));
    this.#servers = new Map();
    for (const { server, task, known, same } of wanted) {
      const stores = this.#servers.get(server) ?? new Map<string, ShippedStore>();
      this.#servers.set(server, stores);
      // What went elsewhere is not there yet.
      const thereAt = known?.task.place === task.place ? known.thereAt : undefined;
      const options = { server, task, tell: this.#tell, launch: this.#launch };
      const made = () =>
        new ShippedStore({ ...options, ...(thereAt === undefined ? {} : { thereAt }) });
      stores.set(task.name, same ?? made());
    }
    if (wanted.length > 0) this.#timer ??= watchOver(() => all(this.#servers));
  }

  status(server: string): WorkStatus {
    const stores = this.#servers.get(server);
    return stores ? { stores: [...stores.values()].map((store) => store.status) } : {};
  }

  /** Those of a server that are held, or away, try again at once. */
  resume(server: string): void {
    for (const store of this.#servers.get(server)?.values() ?? []) store.resume();
  }

  async end(): Promise<void> {
    clearInterval(this.#timer);
    await Promise.all(all(this.#servers).map((store) => store.end()));
  }
}

function all(servers: ReadonlyMap<string, ReadonlyMap<string, ShippedStore>>): ShippedStore[] {
  return [...servers.values()].flatMap((stores) => [...stores.values()]);
}
