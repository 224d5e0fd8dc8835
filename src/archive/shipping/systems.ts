import type { ObjectStore } from '../../store/store.js';
import { systemPrefix } from '../store-keys.js';

/** Says that a cluster belongs into the archive: created before anything else of it. */
export function systemKey(systemId: bigint): string {
  return `${systemPrefix(systemId)}system.json`;
}

const SYSTEM = /^systems\/(\d+)\//;

/** The clusters that an archive has something of. One LIST a cluster. */
export async function systemsOf(
  store: ObjectStore,
  signal?: AbortSignal | undefined,
): Promise<string[]> {
  const systems: string[] = [];
  for (let after: string | undefined; ; ) {
    const id = await firstSystem(store, after, signal);
    if (id === undefined) return systems;
    systems.push(id);
    // In the order of bytes "0" is the first behind "/", so all keys of this cluster come before.
    after = `systems/${id}0`;
  }
}

async function firstSystem(
  store: ObjectStore,
  after: string | undefined,
  signal: AbortSignal | undefined,
): Promise<string | undefined> {
  for await (const { key } of store.list('systems/', { after, signal })) {
    const id = SYSTEM.exec(key)?.[1];
    if (id !== undefined) return id;
  }
  return undefined;
}
