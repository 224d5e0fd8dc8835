import { expect, it, vi } from 'vitest';
import { openBackupArea } from '../../src/archive/backups/area.js';
import { readRecord } from '../../src/archive/backups/catalog.js';
import { holdIntent, readLeases } from '../../src/archive/backups/lease.js';
import type { BackupRecord } from '../../src/base/backup-record.js';
import { StoreUncertainError } from '../../src/errors.js';
import { protect } from '../../src/restore/protect.js';
import { openFileStore } from '../../src/store/file/file-store.js';
import { scratchDir } from '../support/scratch.js';
import { storeBackup, tarOf } from '../support/stored-backup.js';
import { BASE } from './restorable.js';

vi.mock('../../src/archive/backups/catalog.js', { spy: true });

async function stored(place: string): Promise<BackupRecord> {
  const store = await openFileStore(place, { init: true });
  try {
    return await storeBackup({ store, tars: [{ name: 'base.tar', bytes: tarOf(BASE) }] });
  } finally {
    await store.close();
  }
}

it('a restore tells of the expire that it waits for, and begins when that has ended', async () => {
  const place = scratchDir('expiring');
  const record = await stored(place);
  const area = await openBackupArea(place, { writable: true });
  const intent = await holdIntent(area, { id: 'expire-1' });
  const choice = { record, area, located: {} as never, links: [{ record, area }] };
  let told: (expire: string) => void = () => {};
  const waiting = new Promise<string>((resolve) => {
    told = resolve;
  });
  const protection = protect(choice, undefined, told);
  expect(await waiting).toBe('expire-1');
  await intent.release();
  const { lease, release } = await protection;
  expect(lease?.id).toBe(record.id);
  await release();
  await area.close();
});

it('a restore that cannot look up its backup holds no lease', async () => {
  const place = scratchDir('unreadable');
  const record = await stored(place);
  const area = await openBackupArea(place, { writable: true });
  vi.mocked(readRecord).mockRejectedValueOnce(new StoreUncertainError('no answer'));
  const choice = { record, area, located: {} as never, links: [{ record, area }] };
  const { lease, problem, release } = await protect(choice, undefined);
  expect(lease).toBeUndefined();
  expect(problem).toBe('no answer');
  await release();
  expect(await readLeases(area)).toEqual([]);
  await area.close();
});
