import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test, vi } from 'vitest';
import { expirePlace } from '../../src/expire/expire.js';
import type { Lsn } from '../../src/lsn.js';
import { restoreBackup } from '../../src/restore/restore.js';
import { openFileStore } from '../../src/store/file/file-store.js';
import { SmallDisk } from '../chaos/small-disk.js';
import { run } from '../cli/run.js';
import { Random } from '../simulation/random.js';
import { SEGMENT, SYSTEM_ID, sampleArchive, writeLedger } from '../support/archives.js';
import { giveToServer } from '../support/scratch.js';
import { type Made, storeBackup, tarOf } from '../support/stored-backup.js';
import { expectClean, wholeBackups } from '../support/whole-backups.js';

/** How often the disk is full, at another byte each time; WALKEEP_FULL_DISKS=200 for all of it. */
const ROUNDS = Number(process.env.WALKEEP_FULL_DISKS ?? 8);
const SEED = Number(process.env.WALKEEP_FULL_DISKS_SEED ?? Date.now() % 1_000_000);
const random = new Random(SEED);

vi.setConfig({ testTimeout: 120_000 + 10_000 * ROUNDS });

/** Files of all sizes, of which `global/pg_control` comes last. */
function files(count: number): Made[] {
  const some = Array.from({ length: count }, (_, n): Made => {
    const size = random.pick([0, 1, 8192, 40_000, 150_000]);
    return { name: `base/5/${16_384 + n}`, content: Buffer.alloc(size, n + 1) };
  });
  const directories = ['base', 'base/5', 'global', 'pg_tblspc', 'pg_wal'];
  return [
    ...directories.map((name): Made => ({ name, type: 'directory' })),
    { name: 'backup_label', content: 'START WAL LOCATION: 0/2000028\n' },
    { name: 'PG_VERSION', content: '18\n' },
    { name: 'postgresql.conf', content: '' },
    ...some,
    { name: 'global/pg_control', content: Buffer.alloc(8192, 1) },
  ];
}

/** Eight segments, and a backup in the second, the fourth and the sixth that need none of them. */
async function archive() {
  const { directory, names, segmentStart } = sampleArchive(8);
  await writeLedger(directory);
  await using store = await openFileStore(directory, { init: true });
  const members = files(60);
  for (const n of [1, 3, 5]) {
    const start = (segmentStart(n) + 40n) as Lsn;
    const end = (start + 5000n) as Lsn;
    const point = { timeline: 1, time: `2026-11-0${n}T00:00:00Z` };
    await storeBackup({
      ...{ store, id: `2026110${n}T000000F-00000${n}`, frame: 100_000, volume: 500_000 },
      tars: [{ name: 'base.tar', bytes: tarOf(members) }],
      record: {
        ...{ systemId: SYSTEM_ID, segmentSize: SEGMENT, wal: 'included' },
        ...{ start: { ...point, lsn: start }, end: { ...point, lsn: end } },
        walRanges: [{ timeline: 1, start, end }],
      },
    });
  }
  return { directory, names, members };
}

describe(`a disk that is full, seed ${SEED}`, () => {
  test('leaves half a restore that nobody can start, and the next one makes it whole', async (context) => {
    const { disk, why } = SmallDisk.create(0.0625);
    using _ = disk;
    if (!disk.canFill) return context.skip(`no file system of its own: ${why}`);
    giveToServer(disk.directory);
    const { directory, members } = await archive();
    const size = members.reduce((sum, { content = '' }) => sum + content.length, 0);
    const dataDir = join(disk.directory, 'data');
    const options = { places: [directory], dataDir, tryFetch: false, restoreCommand: 'false' };
    const control = join(dataDir, 'global/pg_control');
    for (let round = 0; round < ROUNDS; round++) {
      const left = random.below(Math.floor(size * 0.9));
      // It has looked for space, and that is gone a moment later.
      const full = restoreBackup({ ...options, onPlan: () => disk.fill(left) });
      await expect(full, `${left}`).rejects.toThrow(/space/i);
      expect(existsSync(control), `${left}`).toBe(false);
      await expect(restoreBackup(options), `${left}`).rejects.toThrow(/space/i);
      expect(existsSync(control), `${left}`).toBe(false);
      disk.free();
      await restoreBackup(options);
      for (const { name, content = '', type } of members) {
        if (type === 'directory' || name === 'postgresql.conf') continue;
        const found = readFileSync(join(dataDir, name));
        expect(found.equals(Buffer.from(content)), `${left}: ${name}`).toBe(true);
      }
      const own = readdirSync(dataDir).filter((name) => name.startsWith('.walkeep'));
      expect(own).toEqual([]);
      rmSync(dataDir, { recursive: true });
    }
  });

  test('lets an expire remove what is not needed, or nothing', async (context) => {
    const { disk, why } = SmallDisk.create(0.0625);
    using _ = disk;
    if (!disk.canFill) return context.skip(`no file system of its own: ${why}`);
    const { directory: origin } = await archive();
    const newest = wholeBackups(origin).complete.at(-1)?.id;
    const place = join(disk.directory, 'archive');
    const outcomes: boolean[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      mkdirSync(place);
      cpSync(origin, place, { recursive: true, preserveTimestamps: true });
      const left = round === 0 ? 0 : random.below(200_000);
      disk.fill(left);
      const outcome = await expirePlace(place, { redundancy: 1 }).then(
        () => 'done',
        (e: Error) => e.message,
      );
      outcomes.push(outcome === 'done');
      if (outcome !== 'done') expect(outcome).toMatch(/space/i);
      else expect(left).toBeGreaterThan(0);
      const { complete } = wholeBackups(place);
      expect(complete.at(-1)?.id, `${left}`).toBe(newest);
      disk.free();
      await expirePlace(place, { redundancy: 1 });
      const after = wholeBackups(place);
      expect([after.complete.map(({ id }) => id), after.begun]).toEqual([[newest], []]);
      expectClean(place);
      rmSync(place, { recursive: true });
    }
    if (ROUNDS > 100) {
      const done = outcomes.filter(Boolean).length;
      process.stderr.write(`${done} of ${ROUNDS} expires had enough space\n`);
    }
  });

  test('is freed by an expire, which says what it needs itself', async (context) => {
    const { disk, why } = SmallDisk.create(0.0625);
    using _ = disk;
    if (!disk.canFill) return context.skip(`no file system of its own: ${why}`);
    const { directory: origin, names } = await archive();
    const place = join(disk.directory, 'archive');
    cpSync(origin, place, { recursive: true, preserveTimestamps: true });
    disk.fill(0);
    const planned = await expirePlace(place, { redundancy: 1, dryRun: true });
    expect(planned.backups).toHaveLength(2);
    const refused = await expirePlace(place, { redundancy: 1 }).catch((e) => e);
    expect(refused).toMatchObject({
      code: 'WK_DISK_FULL',
      hint: expect.stringContaining('walkeep cleanup'),
    });
    expect((await run('walkeep', 'cleanup', place, names[1] as string)).code).toBe(0);
    const { backups } = await expirePlace(place, { redundancy: 1 });
    expect(backups).toHaveLength(2);
    expect(wholeBackups(place).complete).toHaveLength(1);
  });
});
