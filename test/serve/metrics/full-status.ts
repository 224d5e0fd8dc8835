import { MetricsListener } from '../../../src/serve/metrics/listener.js';
import type { ServerStatus } from '../../../src/serve/status.js';

const AT = '2026-03-01T00:00:00.000Z';
const LATER = '2026-03-01T00:10:00.000Z';

/** A server that has everything a metric tells of; all is well. */
export const FULL: ServerStatus = {
  ...{ name: 'shop', state: 'streaming', since: AT, directory: '/d', restarts: 0 },
  ...{ rpoSeconds: 0, rpoLimitSeconds: 30, backupLimitSeconds: 93_600, troubles: [] },
  totals: { segments: 7, connections: 3 },
  counts: {
    ...{ receivedBytes: 5e9, refused: 0, reconnects: { WK_TIMEOUT: 1 }, diverged: { 1: 8192 } },
    syncs: { bounds: [0.001, 0.01], counts: [5, 2, 0], seconds: 0.25 },
  },
  receiver: {
    ...{ state: 'streaming', segments: 7, connections: 3 },
    position: {
      ...{ received: '0/30', written: '0/30', flushed: '0/30', serverEnd: '0/30', timeline: 1 },
    },
    members: { db2: { covers: true, message: 'it does' } },
  },
  jobs: [
    {
      ...{ job: 'verify_full', place: 'directory', state: 'waiting', lastSuccess: LATER },
      last: { startedAt: AT, endedAt: LATER, outcome: 'good', by: 'schedule', findings: 0 },
    },
    {
      ...{ job: 'backup_full', place: 'directory', state: 'waiting', lastSuccess: LATER },
      last: { startedAt: AT, endedAt: LATER, outcome: 'good', by: 'schedule' },
    },
  ],
  stores: [
    {
      ...{ name: 'minio', place: 's3://wal', state: 'shipping', since: AT, rpoSeconds: 0 },
      ...{ queueSegments: 0, queueBytes: 0, shippedLsn: '0/30' },
      totals: { segments: 7, failures: 0 },
    },
  ],
  archive: {
    ...{ readAt: LATER, freeBytes: 1e12, segments: 7, bytes: 7e6, timelines: [], gaps: [] },
    backups: [
      {
        ...{ id: 'b', place: 'directory', type: 'full', state: 'complete', kept: false },
        ...{ startedAt: AT, endedAt: LATER, reaches: [] },
      },
    ],
    places: [{ place: 'directory', readAt: LATER }],
    windows: [{ from: LATER, to: LATER, backup: 'b', place: 'directory', timeline: 1 }],
    besideWindows: [],
    slot: {
      ...{ readAt: LATER, name: 'walkeep', exists: true, active: true, walStatus: 'reserved' },
      ...{ retainedBytes: 16e6, safeBytes: 1e9 },
    },
  },
};

/** What /metrics answers for such servers. */
export async function scrape(servers: readonly ServerStatus[] = [FULL]): Promise<string> {
  const facts = { servers: () => [...servers], configIsGood: () => true };
  const listener = await MetricsListener.open({ host: '127.0.0.1', port: 0 }, facts);
  try {
    return await (await fetch(`http://127.0.0.1:${listener.port}/metrics`)).text();
  } finally {
    await listener.close();
  }
}

/** Name, type and series of each metric. */
export function metricsIn(text: string): Map<string, { type: string; series: string[] }> {
  const found = new Map<string, { type: string; series: string[] }>();
  for (const line of text.split('\n')) {
    const [, name = '', type = ''] = /^# TYPE (\S+) (\S+)$/.exec(line) ?? [];
    if (name !== '') found.set(name, { type, series: [] });
    const [, series = ''] = /^([a-z_]+(?:\{.*\})?) \S+$/.exec(line) ?? [];
    const of = (series.split('{')[0] as string).replace(/_(bucket|sum|count)$/, '');
    found.get(found.has(of) ? of : (series.split('{')[0] as string))?.series.push(series);
  }
  return found;
}
