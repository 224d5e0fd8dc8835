import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { listBackups } from '../../../src/backups/list-backups.js';
import { formatLsn, type Lsn } from '../../../src/lsn.js';
import { lookAtPlace } from '../../../src/serve/observer/backups-look.js';
import { mergeWindows } from '../../../src/serve/observer/windows.js';
import { contentOf } from '../../../src/store/content.js';
import { openFileStore } from '../../../src/store/file/file-store.js';
import { segmentStart } from '../../../src/wal/file-name.js';
import { formatIsoTimestamp } from '../../../src/wal/records/timestamp.js';
import { Service } from '../../store/s3/scripted-service.js';
import { SEGMENT, SYSTEM_ID, writeLedger } from '../../support/archives.js';
import { commitArchive } from '../../support/commit-archive.js';
import { scratchDir } from '../../support/scratch.js';
import { storeBackup, tarOf } from '../../support/stored-backup.js';

const id = (n: number) => `2000010${n}T000000F-00000${n}`;
/** Of the ends of backups: commits of these archives are of the first seconds of the year 2000. */
const time = (ms: number) => new Date(946_684_800_000 + ms).toISOString();

/** Commits in ten segments, with backups in some of them. */
async function archive(backups: Record<number, number>) {
  const { directory, names } = commitArchive();
  await writeLedger(directory);
  const store = await openFileStore(directory, { init: true });
  const first = BigInt(Number.parseInt(names[0]!.slice(16, 24), 16));
  for (const [n, ms] of Object.entries(backups)) {
    const start = (segmentStart(first + BigInt(n), SEGMENT) + 40n) as Lsn;
    const end = (start + 5000n) as Lsn;
    await storeBackup({
      ...{ store, id: id(Number(n)) },
      tars: [{ name: 'base.tar', bytes: tarOf([{ name: 'PG_VERSION', content: '18\n' }]) }],
      record: {
        ...{ systemId: SYSTEM_ID, segmentSize: SEGMENT },
        start: { lsn: start, timeline: 1, time: time(ms - 1) },
        end: { lsn: end, timeline: 1, time: time(ms) },
        walRanges: [{ timeline: 1, start, end }],
      },
    });
  }
  return { directory, names };
}

const look = (directory: string, more = {}) =>
  lookAtPlace({
    ...{ kind: 'backups', place: 'directory', directory, timeout: 120_000 },
    ...more,
  });

async function expectSame(directory: string): Promise<void> {
  const { backups } = await listBackups(directory);
  const found = await look(directory);
  expect(found.backups.map((b) => [b.id, b.state, b.type, b.bytes, b.reaches])).toEqual(
    backups.map((b) => [
      ...[b.id, b.state, b.kind, b.stored],
      b.windows.map(({ timeline, to, why }) => ({
        ...{ timeline, why },
        ...(to ? { lsn: formatLsn(to.lsn) } : {}),
        ...(to?.time === undefined
          ? {}
          : { time: new Date(formatIsoTimestamp(to.time)).toISOString() }),
      })),
    ]),
  );
}

describe('a look at the backups of a place', () => {
  it('finds what "backups" finds, and up to when each can be restored', async () => {
    const { directory } = await archive({ 1: 500, 5: 2000 });
    await expectSame(directory);
    const { backups, reaches, latest } = await look(directory);
    expect(latest).toBe(1);
    expect(backups[0]).toMatchObject({
      ...{ place: 'directory', endedAt: time(500), timeline: 1 },
      why: expect.stringMatching(/^the WAL that is here ends at/),
    });
    const last = backups[0]!.reaches![0]!.time!;
    expect(backups.map((b) => b.restorableTo)).toEqual([last, last]);
    expect(mergeWindows(reaches)).toEqual([
      { from: time(500), to: last, backup: id(1), place: 'directory', timeline: 1 },
    ]);
  });

  it('has two windows where WAL is missing between two backups', async () => {
    const { directory, names } = await archive({ 1: 300, 5: 2000 });
    rmSync(join(directory, names[3]!));
    await expectSame(directory);
    const { backups, reaches } = await look(directory);
    expect(backups[0]!.why).toMatch(/^WAL is missing/);
    const windows = mergeWindows(reaches);
    expect(windows.map(({ from, backup }) => [from, backup])).toEqual([
      [time(300), id(1)],
      [time(2000), id(5)],
    ]);
    expect(windows[0]!.to < windows[1]!.from).toBe(true);
  });

  it('has none of a backup whose own WAL is gone, or that is damaged or unfinished', async () => {
    const { directory, names } = await archive({ 1: 300, 5: 2000, 7: 2500 });
    rmSync(join(directory, names[1]!));
    rmSync(join(directory, 'backups', id(5), 'base.index'));
    rmSync(join(directory, 'backups', id(7), 'backup.json'));
    await expectSame(directory);
    const { backups, reaches } = await look(directory);
    expect(backups.map((b) => [b.state, b.restorableTo])).toEqual([
      ['needs-wal', undefined],
      ['damaged', undefined],
      ['running', undefined],
    ]);
    expect(reaches).toEqual([]);
    expect(backups[1]!.why).toContain('base.index" is not there');
  });

  it('has nothing of an empty directory, and throws for one that is not there', async () => {
    const directory = scratchDir('empty');
    await expect(look(join(directory, 'gone'))).rejects.toThrow();
    await writeLedger(directory);
    expect(await look(directory)).toMatchObject({ backups: [], reaches: [] });
  });

  it('does not say of a store of several clusters that it has no backup', async () => {
    const place = join(scratchDir('vault'), 'shop');
    const store = await openFileStore(place, { init: true });
    const vault = { place: 'vault', store: { name: 'vault', place } };
    expect(await look('/d', vault)).toMatchObject({ backups: [], reaches: [] });
    const put = (key: string) => store.create(key, contentOf(Buffer.from('{"format":1}\n')));
    await put('archive.json');
    expect(await look('/d', vault)).toMatchObject({ backups: [], reaches: [] });
    await put('systems/1/system.json');
    expect(await look('/d', vault)).toMatchObject({ backups: [], reaches: [] });
    await put('systems/2/system.json');
    await expect(look('/d', vault)).rejects.toThrow('several clusters');
    await store.close();
  });

  it('says of a store that does not answer that time ran out', async () => {
    await using service = await Service.start(() => 'hang');
    const keys = scratchDir('keys');
    const files = { accessKeyFile: join(keys, 'id'), secretKeyFile: join(keys, 'key') };
    for (const file of Object.values(files)) writeFileSync(file, 'x\n', { mode: 0o600 });
    const store = { name: 'minio', place: service.place().text, ...files };
    const asked = look('/d', { place: 'minio', store, timeout: 50 });
    await expect(asked).rejects.toMatchObject({
      ...{ code: 'WK_TIMEOUT', message: '"minio" was not read to its end within 0.05 s' },
    });
  });

  it('reads keys of a store from its files, and quotes nothing of them', async () => {
    const keys = scratchDir('keys');
    const file = join(keys, 'id');
    writeFileSync(file, 'TOPSECRET\n', { mode: 0o644 });
    const store = {
      ...{ name: 's', place: 's3://bucket?endpoint=http://127.0.0.1:1&region=x' },
      ...{ accessKeyFile: file, secretKeyFile: file },
    };
    const told = await look('/d', { place: 's', store }).then(
      () => '',
      (e: Error) => e.message,
    );
    expect(told).toContain('may be read or written by others');
    expect(told).not.toContain('TOPSECRET');
  });
});
