import { Counter, Gauge, Registry } from 'prom-client';
import { type Lsn, parseLsn } from '../../lsn.js';
import { VERSION } from '../../package.js';
import type { ServerState, ServerStatus } from '../status.js';
import { archiveMetrics } from './archive-metrics.js';

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

const lsn = (text: string): Lsn => parseLsn(text);

/** One number of each server; undefined: it has none. */
type Of = (server: ServerStatus) => number | undefined;

const position =
  (name: 'serverEnd' | 'received' | 'written' | 'flushed'): Of =>
  ({ receiver }) =>
    receiver?.position && Number(lsn(receiver.position[name]));

const GAUGES: Readonly<Record<string, readonly [help: string, of: Of]>> = {
  up: ['1 while WAL is streamed from the server', ({ state }) => (state === 'streaming' ? 1 : 0)],
  rpo_seconds: [
    'Seconds since all WAL that the server had was durable here; 0: it is',
    ({ rpoSeconds }) => rpoSeconds,
  ],
  server_lsn_bytes: [
    'End of the WAL of the server, as far as it was heard of',
    position('serverEnd'),
  ],
  received_lsn_bytes: ['WAL is received up to here', position('received')],
  written_lsn_bytes: ['WAL is written up to here', position('written')],
  flushed_lsn_bytes: ['WAL is durable up to here', position('flushed')],
  unprotected_bytes: [
    'WAL that the server has and that is not durable here',
    ({ receiver }) =>
      receiver?.position &&
      Math.max(0, Number(lsn(receiver.position.serverEnd) - lsn(receiver.position.flushed))),
  ],
  receiver_silent_seconds: [
    'Seconds since the process of the receiver was heard of, where that is too long; else 0',
    ({ silentSeconds = 0 }) => silentSeconds,
  ],
};

const COUNTERS: Readonly<Record<string, readonly [help: string, of: (s: ServerStatus) => number]>> =
  {
    segments_completed_total: ['Segments completed', ({ totals }) => totals.segments],
    connections_total: ['Connections made to the server', ({ totals }) => totals.connections],
    receiver_restarts_total: ['Times that an ended receiver was begun again', (s) => s.restarts],
  };

/** All metrics of a running "walkeep serve". */
export function metricsOf({ servers, configIsGood }: Facts): Registry {
  const registry = new Registry();
  const registers = [registry];
  for (const [name, [help, of]] of Object.entries(GAUGES)) {
    new Gauge({
      ...{ name: `walkeep_${name}`, help, labelNames: ['server'], registers },
      collect() {
        // A server that is gone has no number any more.
        this.reset();
        for (const server of servers()) {
          const value = of(server);
          if (value !== undefined) this.set({ server: server.name }, value);
        }
      },
    });
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
  new Gauge({
    name: 'walkeep_receiver_state',
    help: '1 for the state that the receiver is in, 0 for all others',
    ...{ labelNames: ['server', 'state'], registers },
    collect() {
      this.reset();
      for (const { name: server, state: now } of servers()) {
        for (const state of Object.keys(STATES)) this.set({ server, state }, state === now ? 1 : 0);
      }
    },
  });
  new Gauge({
    name: 'walkeep_member_slot_covers',
    help: '1 if the slot on the member keeps all WAL that is not durable here, 0 if not or not known',
    ...{ labelNames: ['server', 'member'], registers },
    collect() {
      this.reset();
      for (const { name: server, receiver } of servers()) {
        for (const [member, { covers }] of Object.entries(receiver?.members ?? {})) {
          this.set({ server, member }, covers === true ? 1 : 0);
        }
      }
    },
  });
  archiveMetrics(registry, servers);
  new Gauge({
    name: 'walkeep_config_last_reload_successful',
    help: '1 if the configuration was good when it was read last',
    registers,
    collect() {
      this.set(configIsGood() ? 1 : 0);
    },
  });
  new Gauge({
    name: 'walkeep_build_info',
    help: 'Version of the program, as a label',
    ...{ labelNames: ['version'], registers },
  }).set({ version: VERSION }, 1);
  return registry;
}
