import { Counter, Gauge, Registry } from 'prom-client';
import { VERSION } from '../../package.js';
import { TROUBLES } from '../config/work-model.js';
import type { ServerState, ServerStatus } from '../status.js';
import { archiveMetrics } from './archive-metrics.js';
import { COUNTERS, GAUGES, type Labelled, MANY } from './numbers.js';
import { storeMetrics } from './store-metrics.js';
import { SyncHistogram } from './syncs.js';

/** What metrics are made of, asked for at each scrape: nothing is read or waited for. */
export interface Facts {
  servers(): ServerStatus[];
  /** The last reading of the configuration was good. */
  configIsGood(): boolean;
}

const STATES: Readonly<Record<ServerState, true>> = {
  ...{ starting: true, connecting: true, streaming: true, disconnected: true },
  ...{ restarting: true, held: true, paused: true, stopping: true },
};

/** All metrics of a running "walkeep serve". */
export function metricsOf({ servers: ask, configIsGood }: Facts): Registry {
  const servers = onceATurn(ask);
  const registry = new Registry();
  const registers = [registry];
  /** A gauge of several numbers of each server. */
  const many = (
    name: string,
    help: string,
    labels: readonly string[],
    of: (server: ServerStatus) => readonly Labelled[],
  ): void => {
    new Gauge({
      ...{ name: `walkeep_${name}`, help, labelNames: ['server', ...labels], registers },
      collect() {
        // A server that is gone has no number any more.
        this.reset();
        for (const server of servers()) {
          for (const [more, value] of of(server)) {
            if (value !== undefined) this.set({ server: server.name, ...more }, value);
          }
        }
      },
    });
  };
  for (const [name, [help, of]] of Object.entries(GAUGES)) {
    many(name, help, [], (server) => [[{}, of(server)]]);
  }
  for (const [name, [help, of]] of Object.entries(COUNTERS)) {
    new Counter({
      ...{ name: `walkeep_${name}`, help, labelNames: ['server'], registers },
      collect() {
        this.reset();
        for (const server of servers()) this.inc({ server: server.name }, of(server));
      },
    });
  }
  new Counter({
    name: 'walkeep_reconnects_total',
    help: 'Times that another connection was to be made, by the code of the error',
    ...{ labelNames: ['server', 'code'], registers },
    collect() {
      this.reset();
      for (const { name: server, counts } of servers()) {
        for (const [code, n] of Object.entries(counts?.reconnects ?? {})) {
          this.inc({ server, code }, n);
        }
      }
    },
  });
  archiveMetrics(registry, servers);
  storeMetrics(registry, servers);
  for (const [name, [help, labels, of]] of Object.entries(MANY)) many(name, help, labels, of);
  many(
    'receiver_state',
    '1 for the state that the receiver is in, 0 for all others',
    ['state'],
    ({ state: now }) => Object.keys(STATES).map((state) => [{ state }, state === now ? 1 : 0]),
  );
  many(
    'trouble',
    '1 while something of the kind is wrong, as the log and the webhook tell it',
    ['kind'],
    ({ troubles = [] }) =>
      TROUBLES.filter((kind) => kind !== 'reload').map((kind) => [
        { kind },
        troubles.some((trouble) => trouble.kind === kind) ? 1 : 0,
      ]),
  );
  new SyncHistogram(servers, registers);
  const one = (name: string, help: string, of: () => number): void => {
    new Gauge({
      ...{ name: `walkeep_${name}`, help, registers },
      collect() {
        this.set(of());
      },
    });
  };
  one(
    'config_last_reload_successful',
    '1 if the configuration was good when it was read last',
    () => (configIsGood() ? 1 : 0),
  );
  one('clock_timestamp_seconds', 'The clock of this machine', () => Date.now() / 1000);
  new Gauge({
    name: 'walkeep_build_info',
    help: 'Version of the program, as a label',
    ...{ labelNames: ['version'], registers },
  }).set({ version: VERSION }, 1);
  return registry;
}

/** A scrape asks for all of its numbers in one turn: they are of one moment, and asked for once. */
function onceATurn<T>(ask: () => T): () => T {
  let answer: { value: T } | undefined;
  return () => {
    if (!answer) {
      answer = { value: ask() };
      queueMicrotask(() => {
        answer = undefined;
      });
    }
    return answer.value;
  };
}
