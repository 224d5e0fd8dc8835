import type { ServerStore, WorkConfig } from '../../../src/serve/config/config.js';
import type { RestorePlanned, RestoreQuery } from '../../../src/serve/restore/messages.js';

/** A server with stores, as far as the restore builder asks. */
export function workOf(directory = '/srv/wal', stores: Partial<ServerStore>[] = []): WorkConfig {
  return {
    server: {
      ...{ name: 'shop', connection: 'host=db', directory, ensureSlot: false, synchronous: true },
      compression: { method: 'none' },
    },
    stores: stores.map((store, i) => ({
      ...{ name: `store${i}`, place: `s3://wal${i}/shop`, recipients: [] },
      ...store,
    })),
    ...{ rpo: 30_000, verify: {}, hooks: {} },
  };
}

export function planOf(more: Partial<RestorePlanned> = {}): RestorePlanned {
  return {
    backup: {
      ...{ id: '20260801T000000F-000000', type: 'full', place: '/srv/wal', timeline: 1 },
      ...{ startedAt: '2026-08-01T00:00:00.000Z', endedAt: '2026-08-01T00:10:00.000Z' },
      ...{ endLsn: '0/3000000', bytes: 1e9, version: '18.4', encrypted: false },
      ...{ chain: ['20260801T000000F-000000'], tablespaces: [] },
    },
    wal: {
      ...{ from: '0/2000028', to: '0/5000028', segments: 4, bytes: 5e7 },
      ...{ first: '000000010000000000000002', last: '000000010000000000000005' },
    },
    ...{ timelines: [{ timeline: 1 }], target: ['--to', '0/5000028', '--before'], timeline: 1 },
    ...{ lsn: '0/5000028', isLatest: false, warnings: [] },
    last: { lsn: '0/4FFFF00', time: '2026-08-01T11:59:59.123456Z', xid: 770 },
    next: { lsn: '0/5000028', time: '2026-08-01T12:00:01.000000Z', xid: 771 },
    lost: {
      ...{ commits: 3, isTorn: false, segments: 1, beside: [] },
      last: { lsn: '0/5000428', time: '2026-08-01T12:30:00.000000Z', xid: 773 },
    },
    ...more,
  };
}

export const QUERY: RestoreQuery = {
  ...{ to: '2026-08-01 12:00:00.000000+00', before: false, from: ['directory'] },
  dataDir: '/var/lib/postgresql/data',
};
