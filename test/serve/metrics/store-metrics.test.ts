import { Registry } from 'prom-client';
import { expect, it } from 'vitest';
import { storeMetrics } from '../../../src/serve/metrics/store-metrics.js';
import type { ServerStatus, StoreStatus } from '../../../src/serve/status.js';

const storeOf = (name: string, more: Partial<StoreStatus>): StoreStatus => ({
  ...{ name, place: 's3://wal', state: 'shipping', since: '2026-01-01T00:00:00.000Z' },
  ...{ rpoSeconds: 0, totals: { segments: 7, failures: 0 } },
  ...more,
});

const serverOf = (name: string, stores?: StoreStatus[]): ServerStatus => ({
  ...{ name, state: 'streaming', since: '2026-01-01T00:00:00.000Z', directory: '/d' },
  ...{ restarts: 0, rpoSeconds: 0, totals: { segments: 7, connections: 3 }, rpoLimitSeconds: 30 },
  ...(stores ? { stores } : {}),
});

it('tells of each store, of what is known, and of none that is gone', async () => {
  const servers = [
    serverOf('shop', [
      storeOf('minio', { queueSegments: 0, queueBytes: 0 }),
      storeOf('vault', {
        ...{ state: 'away', rpoSeconds: 90.5, queueSegments: 3, queueBytes: 50_331_648 },
        totals: { segments: 4, failures: 12 },
      }),
      storeOf('new', { state: 'starting', rpoSeconds: 1 }),
      storeOf('stuck', { state: 'held', rpoSeconds: 1 }),
    ]),
    serverOf('alone'),
  ];
  const registry = new Registry();
  storeMetrics(registry, () => servers);
  const lines = async () => (await registry.metrics()).split('\n');
  const told = await lines();
  expect(told).toEqual(
    expect.arrayContaining([
      'walkeep_store_up{server="shop",store="minio"} 1',
      'walkeep_store_up{server="shop",store="vault"} 0',
      'walkeep_store_up{server="shop",store="new"} 0',
      'walkeep_store_held{server="shop",store="minio"} 0',
      'walkeep_store_held{server="shop",store="stuck"} 1',
      'walkeep_store_rpo_seconds{server="shop",store="minio"} 0',
      'walkeep_store_rpo_seconds{server="shop",store="vault"} 90.5',
      'walkeep_ship_queue_bytes{server="shop",store="vault"} 50331648',
      'walkeep_ship_queue_segments{server="shop",store="vault"} 3',
      'walkeep_ship_failures_total{server="shop",store="vault"} 12',
      'walkeep_ship_segments_total{server="shop",store="minio"} 7',
    ]),
  );
  expect(told.join('\n')).not.toContain('queue_bytes{server="shop",store="new"}');
  expect(told.join('\n')).not.toContain('alone');
  expect(await lines()).toEqual(told);
  servers.shift();
  expect((await lines()).join('\n')).not.toContain('shop');
});
