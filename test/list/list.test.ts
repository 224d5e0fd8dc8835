import { renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { openDirectory } from '../../src/archive/places/directory-archive.js';
import { readCatalog } from '../../src/archive/read-catalog.js';
import { listArchive } from '../../src/list/list.js';
import { type Lsn, parseLsn } from '../../src/lsn.js';
import { segmentFileName } from '../../src/wal/file-name.js';
import { formatIsoTimestamp } from '../../src/wal/records/timestamp.js';
import { run } from '../cli/run.js';
import { fixtureArchive, SEGMENT, sampleArchive, writeLedger } from '../support/archives.js';
import { scratchDir } from '../support/scratch.js';
import { loadFixture } from '../wal/fixtures.js';

describe('listArchive', () => {
  test('shows timelines, branches, ranges and commit times of real WAL', async () => {
    const directory = fixtureArchive('promoted');
    const { info, end } = loadFixture('promoted');
    const list = await listArchive(directory);
    expect(list).toMatchObject({ serverMajor: 15, segmentSize: SEGMENT, segments: 3, gaps: [] });
    expect(list.size).toBe(3 * SEGMENT);
    const [one, two] = list.timelines;
    expect(one).toMatchObject({ timeline: 1 });
    expect(one!.ranges).toMatchObject([{ segments: 2, from: parseLsn('0/600000') }]);
    expect(two).toMatchObject({
      timeline: 2,
      parent: 1,
      branch: parseLsn(info.switchPoint as string),
      reason: 'no recovery target specified',
    });
    expect(two!.ranges).toMatchObject([{ to: end, partial: '000000020000000000000008.partial' }]);
    const { firstCommit, lastCommit } = two!.ranges[0]!;
    expect(formatIsoTimestamp(firstCommit!)).toMatch(/^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}/);
    expect(lastCommit!).toBeGreaterThan(firstCommit!);
  });

  test('shows gaps, accepted ones apart, and what was acknowledged', async () => {
    const { directory, names, end, segmentStart } = sampleArchive(7);
    rmSync(join(directory, names[1]!));
    rmSync(join(directory, names[3]!));
    const accepted = { from: segmentStart(3), to: segmentStart(4), timeline: 1, why: 'known' };
    const flushed = { lsn: end as Lsn, timeline: 1 };
    await writeLedger(directory, { type: 'gap', ...accepted }, { type: 'flushed', ...flushed });
    const list = await listArchive(directory);
    expect(list.timelines[0]!.ranges.map((r) => [r.from, r.to, r.segments])).toEqual([
      [segmentStart(0), segmentStart(1), 1],
      [segmentStart(2), segmentStart(3), 1],
      [segmentStart(4), end, 3],
    ]);
    expect(list.gaps).toEqual([{ timeline: 1, from: segmentStart(1), to: segmentStart(2) }]);
    expect(list.acceptedGaps).toMatchObject([accepted]);
    expect(list.flushed).toEqual(flushed);
  });
});

test('names what cannot be read', async () => {
  const { directory, names } = sampleArchive(3);
  expect((await listArchive(directory)).unread).toEqual([]);
  for (const n of [0, 1]) renameSync(join(directory, names[n]!), join(directory, `${names[n]}.xz`));
  const list = await listArchive(directory);
  expect(list).toMatchObject({ segments: 1, unread: [`${names[0]}.xz`, `${names[1]}.xz`] });
  const { stdout } = await run('walkeep', 'list', directory);
  expect(stdout).toContain(`cannot be read, not counted: ${names[0]}.xz and 1 more`);
  const { stdout: json } = await run('walkeep', 'list', '--json', directory);
  expect(JSON.parse(json.split('\n')[0]!)).toMatchObject({ unread: list.unread });
});

describe('readCatalog', () => {
  test('knows a timeline by the history of its child, or by the ledger', async () => {
    const directory = scratchDir('archive');
    const name = (timeline: number, segment: bigint) => segmentFileName(timeline, segment, SEGMENT);
    for (const file of [name(1, 3n), name(2, 4n), name(3, 5n)]) {
      writeFileSync(join(directory, file), Buffer.alloc(SEGMENT));
    }
    const history = async () =>
      (await readCatalog(openDirectory(directory))).timelines.map((t) => t.history);
    expect((await history()).map((h) => h?.ancestors)).toEqual([[], undefined, undefined]);
    writeFileSync(join(directory, '00000003.history'), '1\t0/4000F0\ta\n2\t0/500100\tb\n');
    expect((await history())[1]).toMatchObject({ timeline: 2, ancestors: [{ end: 0x4000f0n }] });
    rmSync(join(directory, '00000003.history'));
    await writeLedger(
      directory,
      { type: 'timeline', timeline: 1, start: 0x300000n as Lsn, why: 'first start' },
      { type: 'timeline', timeline: 2, start: 0x400000n as Lsn, why: 'switch' },
      { type: 'timeline', timeline: 3, start: 0x500000n as Lsn, why: 'switch' },
    );
    expect((await history())[2]).toMatchObject({
      ancestors: [
        { timeline: 1, end: 0x400000n },
        { timeline: 2, end: 0x500000n },
      ],
    });
  });

  test('takes 50,000 names in a moment', { timeout: 240_000 }, async () => {
    const directory = scratchDir('archive');
    for (let i = 0n; i < 50_000n; i++) {
      if (i !== 30_000n) writeFileSync(join(directory, segmentFileName(1, i, SEGMENT)), '');
    }
    const before = process.cpuUsage();
    const { gaps, timelines } = await readCatalog(openDirectory(directory));
    // Of this process: what else the machine does meanwhile is no matter.
    const { user, system } = process.cpuUsage(before);
    expect((user + system) / 1000).toBeLessThan(5000);
    expect(timelines[0]!.ranges).toHaveLength(1);
    expect(gaps).toEqual([]);
  });
});
