import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import {
  SHIP_EVENTS,
  type ShipEvents,
  type ShipOptions,
  type ShipResult,
} from '../../src/ship/options.js';
import { WalShipper } from '../../src/ship/shipper.js';
import { type MemoryObjects, MemoryStore } from '../../src/store/memory.js';

export const FAST: Partial<ShipOptions> = {
  once: true,
  retryDelay: 1,
  pollInterval: 5,
  compression: { method: 'none' },
};

/** Everything that a shipper said, in order. */
export type Said = { [K in keyof ShipEvents]: { event: K } & ShipEvents[K][0] }[keyof ShipEvents];

/** A shipper whose events are kept. */
export function listened(options: ShipOptions) {
  const shipper = new WalShipper({ ...FAST, ...options });
  const said: Said[] = [];
  for (const event of SHIP_EVENTS) {
    shipper.on(event, (value: object) => said.push({ event, ...value } as Said));
  }
  const told = <K extends keyof ShipEvents>(event: K) =>
    said.filter((one): one is Extract<Said, { event: K }> => one.event === event);
  return { shipper, said, told };
}

/** Ships all that is there, once. */
export async function shipOnce(
  source: string,
  places: ShipOptions['places'],
  options: Partial<ShipOptions> = {},
) {
  const { shipper, said, told } = listened({ source, places, ...options });
  const result: ShipResult = await shipper.run();
  return { result, said, told };
}

export function memory(objects: MemoryObjects, place = 'memory:one'): MemoryStore {
  return new MemoryStore({ objects, place });
}

/** Keys below `wal/`, `partial/`, `history/` and `conflict/`, without what is the same for all. */
export function keysOf(objects: MemoryObjects): string[] {
  return objects.entries().flatMap(([key]) => {
    const [, , ...rest] = key.split('/');
    return key.startsWith('systems/') && rest.length > 1 ? [rest.join('/')] : [];
  });
}

/** What is stored, decompressed. */
export function contentOf(objects: MemoryObjects, suffix: string): Buffer {
  const found = objects.entries().find(([key]) => key.endsWith(suffix));
  if (!found) throw new Error(`nothing ends with ${suffix}`);
  const bytes = Buffer.from(found[1].bytes);
  return found[1].meta['wk-stages'] === 'gzip' ? gunzipSync(bytes) : bytes;
}

/** How the whole segments of a directory differ from what is stored; empty when all is well. */
export function differences(
  directory: string,
  objects: MemoryObjects,
  systemId?: bigint,
): string[] {
  const system = systemId === undefined ? '/' : `/${systemId}/`;
  return readdirSync(directory)
    .filter((name) => /^[0-9A-F]{24}$/.test(name))
    .filter((name) => {
      const suffix = `wal/${name.slice(0, 8)}/${name}`;
      const end = systemId === undefined ? `/${suffix}` : `${system}${suffix}`;
      if (!objects.entries().some(([key]) => key.endsWith(end))) return true;
      return !contentOf(objects, end).equals(readFileSync(join(directory, name)));
    });
}
