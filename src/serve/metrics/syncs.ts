import { Histogram, type Registry } from 'prom-client';
import type { ServerStatus } from '../status.js';

/** A line of a metric, as prom-client's registry prints it. */
interface Line {
  metricName: string;
  labels: Record<string, string>;
  value: number;
}

const NAME = 'walkeep_sync_duration_seconds';
const HELP = 'Time from when WAL came until it was durable';

/**
 * A histogram of what was counted elsewhere: in the receivers' processes, where a message for each
 * sync would cost more than the sync.
 */
export class SyncHistogram extends Histogram<'server'> {
  readonly #servers: () => ServerStatus[];

  constructor(servers: () => ServerStatus[], registers: Registry[]) {
    super({ name: NAME, help: HELP, labelNames: ['server'], registers });
    this.#servers = servers;
  }

  /** @internal What prom-client's registry asks for. */
  async getForPromString() {
    const values = this.#servers().flatMap(linesOf);
    return { name: NAME, help: HELP, type: 'histogram', values, aggregator: 'sum' };
  }
}

function linesOf({ name: server, counts }: ServerStatus): Line[] {
  if (!counts) return [];
  const { bounds, counts: each, seconds } = counts.syncs;
  let sum = 0;
  const buckets = each.map((count, i): Line => {
    sum += count;
    const le = bounds[i] === undefined ? '+Inf' : `${bounds[i]}`;
    return { metricName: `${NAME}_bucket`, labels: { le, server }, value: sum };
  });
  return [
    ...buckets,
    { metricName: `${NAME}_sum`, labels: { server }, value: seconds },
    { metricName: `${NAME}_count`, labels: { server }, value: sum },
  ];
}
