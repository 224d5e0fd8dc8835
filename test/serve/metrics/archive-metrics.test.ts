import { Registry } from 'prom-client';
import { expect, it } from 'vitest';
import { archiveMetrics } from '../../../src/serve/metrics/archive-metrics.js';
import type { ArchiveStatus, BackupStatus, ServerStatus } from '../../../src/serve/status.js';

const iso = (seconds: number) => new Date(seconds * 1000).toISOString();
const gap = (accepted: boolean) => ({
  ...{ timeline: 1, from: '0/1000000', to: '0/2000000', segments: 1, accepted },
});
const backup = (more: Partial<BackupStatus>): BackupStatus => ({
  ...{ id: 'x', place: 'directory', type: 'full', state: 'complete', ...more },
});

async function lines(archive: Partial<ArchiveStatus> | undefined): Promise<string[]> {
  const registry = new Registry();
  const full = archive && {
    ...{ segments: 0, bytes: 0, timelines: [], gaps: [], backups: [], windows: [], ...archive },
  };
  const server = {
    ...{ name: 'shop', state: 'streaming', since: '', directory: '/d', restarts: 0 },
    ...{ rpoSeconds: 0, rpoLimitSeconds: 1, totals: { segments: 0, connections: 0 } },
    ...(full ? { archive: full } : {}),
  } as ServerStatus;
  archiveMetrics(registry, () => [server]);
  return (await registry.metrics()).split('\n').filter((line) => /^walkeep/.test(line));
}

it('tells what an archive holds', async () => {
  const told = await lines({
    ...{ readAt: iso(5000), segments: 7, freeBytes: 1e12 },
    gaps: [gap(true), gap(false), gap(false)],
    more: { gaps: 10, acceptedGaps: 1 },
    windows: [
      { from: iso(100), to: iso(200), backup: 'a', timeline: 1 },
      { from: iso(300), to: iso(400), backup: 'b', timeline: 1 },
    ],
    backups: [
      backup({ endedAt: iso(100) }),
      backup({ endedAt: iso(90) }),
      backup({ endedAt: iso(300), type: 'incremental', place: 'minio' }),
      backup({ endedAt: iso(900), state: 'damaged' }),
    ],
    slot: {
      ...{ readAt: iso(1), name: 's', exists: true, walStatus: 'extended' },
      ...{ retainedBytes: 12, safeBytes: 34 },
    },
  });
  expect(told.sort()).toEqual([
    'walkeep_archive_free_bytes{server="shop"} 1000000000000',
    'walkeep_archive_read_timestamp_seconds{server="shop"} 5000',
    'walkeep_archive_segments{server="shop"} 7',
    'walkeep_backup_last_success_timestamp_seconds{server="shop",type="full",place="directory"} 100',
    'walkeep_backup_last_success_timestamp_seconds{server="shop",type="incremental",place="minio"} 300',
    'walkeep_first_recoverable_timestamp_seconds{server="shop"} 100',
    'walkeep_gaps{server="shop",accepted="false"} 12',
    'walkeep_gaps{server="shop",accepted="true"} 2',
    'walkeep_last_recoverable_timestamp_seconds{server="shop"} 400',
    'walkeep_slot_retained_bytes{server="shop"} 12',
    'walkeep_slot_safe_bytes{server="shop"} 34',
    'walkeep_slot_up{server="shop"} 1',
  ]);
});

it('has no number for what is not known', async () => {
  expect(await lines(undefined)).toEqual([]);
  const away = { code: 'WK_CONNECTION', message: 'away' };
  expect(await lines({ slot: { readAt: iso(1), name: 's', exists: false, error: away } })).toEqual(
    [],
  );
  expect(
    await lines({ slot: { readAt: iso(1), name: 's', exists: true, walStatus: 'lost' } }),
  ).toEqual(['walkeep_slot_up{server="shop"} 0']);
});
