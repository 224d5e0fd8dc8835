import type { WorkConfig } from '../../../src/serve/config/config.js';
import type { FromShipper, ShipSnapshot, ShipTask } from '../../../src/serve/shipping/messages.js';
import type { LogEntry } from '../../../src/serve/status.js';
import { type PlayedChild, playedStage } from '../../support/played-child.js';

export type Played = PlayedChild<ShipTask, FromShipper>;

/** Processes that ship, which a test plays. */
export const stage = () => playedStage<ShipTask, FromShipper>();

export const news = (snapshot: Partial<ShipSnapshot>, log: LogEntry[] = []): FromShipper => ({
  kind: 'news',
  snapshot: { state: 'shipping', segments: 0, failures: 0, ...snapshot },
  ...{ log, lost: 0 },
});

/** A server with stores, by their names. */
export function workOf(name: string, stores: Record<string, object>, directory = `/${name}`) {
  const server = {
    ...{ name, connection: 'host=db', directory, ensureSlot: false, synchronous: true },
    compression: { method: 'none' as const },
  };
  const work: WorkConfig = {
    ...{ server, rpo: 30_000, verify: {}, hooks: {} },
    stores: Object.entries(stores).map(([store, more]) => ({
      ...{ name: store, place: `s3://${store}/${name}`, recipients: [] },
      ...more,
    })),
  };
  return work;
}
