import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { openArchive } from '../../src/archive/places/open-archive.js';
import { readCatalog } from '../../src/archive/read-catalog.js';
import { type BackupDemands, checkBackups } from '../../src/check/check-backups.js';
import type { Lsn } from '../../src/lsn.js';
import { openFileStore } from '../../src/store/file/file-store.js';
import { SEGMENT, SYSTEM_ID, sampleArchive } from '../support/archives.js';
import { storeBackup, tarOf } from '../support/stored-backup.js';

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const id = (n: number) => `2026110${n}T000000F-00000${n}`;

/** Five segments, and backups that ended so many milliseconds ago. */
async function archive(...ages: number[]) {
  const made = sampleArchive(5);
  const store = await openFileStore(made.directory, { init: true });
  for (const [n, age] of ages.entries()) {
    const start = (made.segmentStart(n) + 40n) as Lsn;
    const end = (start + 5000n) as Lsn;
    const point = { timeline: 1, time: new Date(Date.now() - age).toISOString() };
    await storeBackup({
      ...{ store, id: id(n) },
      tars: [{ name: 'base.tar', bytes: tarOf([{ name: 'PG_VERSION', content: '18\n' }]) }],
      record: {
        ...{ systemId: SYSTEM_ID, segmentSize: SEGMENT },
        ...{ start: { ...point, lsn: start }, end: { ...point, lsn: end } },
        walRanges: [{ timeline: 1, start, end }],
      },
    });
  }
  return made;
}

async function told(directory: string, demands: BackupDemands = {}): Promise<string[]> {
  const catalog = await readCatalog(await openArchive(directory));
  const results = await checkBackups(directory, catalog, demands);
  return results.map((r) => `${r.status} ${r.check}: ${r.message}`);
}

test('tells how old the last backup is, and since when all can be restored to', async () => {
  const { directory } = await archive(3 * DAY, 5 * HOUR + 1000);
  const [last, since] = await told(directory);
  expect(last).toBe(`ok backups: the last one, ${id(1)}, ended 5 h ago`);
  expect(since).toMatch(/^ok window: every moment since \S+ \S+ UTC can be restored to$/);
  expect(await told(directory, { backupAge: 6 * HOUR, window: 2 * DAY })).toEqual([last, since]);
  const [old, short] = await told(directory, { backupAge: 4 * HOUR, window: 4 * DAY });
  expect(old).toMatch(/^warn backups: .*; it may be 4 h old$/);
  expect(short).toMatch(/^warn window: .*: 3 days instead of 4 days$/);
});

test('a hole ends the window, a damaged backup is told', async () => {
  const { directory, names } = await archive(3 * DAY, 2 * DAY, DAY);
  rmSync(join(directory, names[1]!));
  rmSync(join(directory, 'backups', id(1), 'base.index'));
  const [damaged, last, since] = await told(directory, { window: 2 * DAY });
  expect(damaged).toMatch(/^warn backups: .* is damaged: .*base.index" is not there$/);
  expect(last).toMatch(/^ok backups/);
  expect(since).toMatch(/^warn window: .*: 24 h instead of 2 days$/);
});

test('says nothing where there are none, unless it is asked', async () => {
  const { directory } = await archive();
  expect(await told(directory)).toEqual([]);
  expect(await told(directory, { backupAge: DAY })).toEqual([
    'fail backups: there is no complete base backup',
  ]);
});
