import { Counter, Gauge, type Registry } from 'prom-client';
import type { ServerStatus, StoreStatus } from '../status.js';

/** One number of a store; undefined: it has none. */
type Of = (store: StoreStatus) => number | undefined;

const GAUGES: Readonly<Record<string, readonly [help: string, of: Of]>> = {
  store_up: [
    '1 while WAL is shipped to the store, 0 if it is away or held, or its process is not there',
    ({ state }) => (state === 'shipping' ? 1 : 0),
  ],
  store_held: [
    '1 if the store does not get all of the WAL until somebody looks',
    ({ state }) => (state === 'held' ? 1 : 0),
  ],
  store_rpo_seconds: [
    'Seconds since all that was completed here was at the store; 0: it is',
    ({ rpoSeconds }) => rpoSeconds,
  ],
  ship_queue_bytes: [
    'WAL in completed segments that are not at the store',
    ({ queueBytes }) => queueBytes,
  ],
  ship_queue_segments: [
    'Completed segments that are not at the store',
    ({ queueSegments }) => queueSegments,
  ],
};

const COUNTERS: Readonly<Record<string, readonly [help: string, of: (s: StoreStatus) => number]>> =
  {
    ship_failures_total: [
      'Tries that failed, files held back, and processes that ended',
      ({ totals }) => totals.failures,
    ],
    ship_segments_total: ['Segments shipped to the store', ({ totals }) => totals.segments],
  };

/** Adds the metrics of what is shipped to stores. */
export function storeMetrics(registry: Registry, servers: () => readonly ServerStatus[]): void {
  const rest = { labelNames: ['server', 'store'], registers: [registry] };
  const each = (of: Of, take: (labels: Record<string, string>, value: number) => void): void => {
    for (const { name: server, stores = [] } of servers()) {
      for (const store of stores) {
        const value = of(store);
        if (value !== undefined) take({ server, store: store.name }, value);
      }
    }
  };
  for (const [name, [help, of]] of Object.entries(GAUGES)) {
    new Gauge({
      ...{ name: `walkeep_${name}`, help, ...rest },
      collect() {
        // A store that is gone has no number any more.
        this.reset();
        each(of, (labels, value) => this.set(labels, value));
      },
    });
  }
  for (const [name, [help, of]] of Object.entries(COUNTERS)) {
    new Counter({
      ...{ name: `walkeep_${name}`, help, ...rest },
      collect() {
        this.reset();
        each(of, (labels, value) => this.inc(labels, value));
      },
    });
  }
}
