import { renameSync, rmSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { ArchiveList } from '../../../src/list/list.js';
import { listArchive } from '../../../src/list/list.js';
import { formatLsn, type Lsn } from '../../../src/lsn.js';
import { KnownFiles } from '../../../src/serve/observer/known-files.js';
import { lookAtWal, viewOf } from '../../../src/serve/observer/wal-look.js';
import { formatIsoTimestamp } from '../../../src/wal/records/timestamp.js';
import { fixtureArchive, SEGMENT, sampleArchive, writeLedger } from '../../support/archives.js';
import { commitArchive } from '../../support/commit-archive.js';
import { scratchDir } from '../../support/scratch.js';

const look = (directory: string, known = new KnownFiles(directory), unless?: 'same') =>
  lookAtWal(directory, known, unless);

/** As `list --json` has them. */
function told({ timelines, gaps, acceptedGaps }: ArchiveList) {
  const iso = (time: bigint | undefined) =>
    time === undefined ? undefined : formatIsoTimestamp(time as never);
  return {
    ranges: timelines.flatMap((t) =>
      t.ranges.map((r) => [
        ...[t.timeline, t.parent, t.branch && formatLsn(t.branch), t.beside],
        ...[formatLsn(r.from), formatLsn(r.to), r.segments, r.size],
        ...[iso(r.firstCommit), iso(r.lastCommit)],
      ]),
    ),
    gaps: [
      ...gaps.map((g) => [g.timeline, formatLsn(g.from), formatLsn(g.to), false]),
      ...acceptedGaps.map((g) => [g.timeline, formatLsn(g.from), formatLsn(g.to), true]),
    ].sort(),
  };
}

async function looked(directory: string, known?: KnownFiles) {
  const { timelines, gaps, segments, bytes } = (await look(directory, known))!;
  return {
    segments,
    bytes,
    ranges: timelines.flatMap((t) =>
      t.ranges.map((r) => [
        ...[t.timeline, t.parent, t.branch, t.beside],
        ...[r.from, r.to, r.segments, r.bytes, r.firstCommit, r.lastCommit],
      ]),
    ),
    gaps: gaps.map((g) => [g.timeline, g.from, g.to, g.accepted]).sort(),
  };
}

async function expectSame(directory: string, known?: KnownFiles): Promise<void> {
  const list = await listArchive(directory);
  const { segments, size: bytes } = list;
  expect(await looked(directory, known)).toEqual({ segments, bytes, ...told(list) });
}

describe('a look at the WAL of a directory', () => {
  it.each(['promoted', 'switch', 'mixed-17', 'record-across-segments'])(
    'finds what "list" finds in %s, also when it knows files from before',
    async (fixture) => {
      const directory = fixtureArchive(fixture);
      const known = new KnownFiles(directory);
      await expectSame(directory, known);
      await expectSame(directory, known);
    },
  );

  it('finds the same gaps, and the commits on both sides of each', async () => {
    const { directory, names } = commitArchive();
    const known = new KnownFiles(directory);
    await expectSame(directory, known);
    for (const n of [2, 3, 6]) rmSync(join(directory, names[n]!));
    await expectSame(directory, known);
    const { gaps, timelines, latest } = (await look(directory, known))!;
    expect(gaps.map((g) => g.segments)).toEqual([2, 1]);
    const ranges = timelines[0]!.ranges;
    expect(gaps.map((g) => [g.after, g.before])).toEqual([
      [ranges[0]!.lastCommit, ranges[1]!.firstCommit],
      [ranges[1]!.lastCommit, ranges[2]!.firstCommit],
    ]);
    expect(gaps[0]!.after).toMatch(/^2000-01-01T/);
    expect(latest).toBe(1);
  });

  it('tells accepted gaps apart', async () => {
    const { directory, names, segmentStart } = sampleArchive(7);
    rmSync(join(directory, names[1]!));
    rmSync(join(directory, names[3]!));
    const accepted = { from: segmentStart(3), to: segmentStart(4), timeline: 1, why: 'known' };
    await writeLedger(directory, { type: 'gap', ...accepted });
    await expectSame(directory);
    const { gaps } = (await look(directory))!;
    expect(gaps.map((g) => [g.from, g.accepted])).toEqual([
      [formatLsn(segmentStart(1)), false],
      [formatLsn(segmentStart(3)), true],
    ]);
  });

  it('reads again what another file has taken the place of', async () => {
    const { directory, names } = commitArchive();
    const known = new KnownFiles(directory);
    const before = (await look(directory, known))!.timelines[0]!.ranges[0]!;
    renameSync(join(directory, names[4]!), join(directory, names[0]!));
    utimesSync(join(directory, names[0]!), 1, 1);
    const after = (await look(directory, known))!.timelines[0]!.ranges[0]!;
    expect(after.firstCommit).not.toBe(before.firstCommit);
  });

  it('says nothing of names that have the same shape, and at once of a gap', async () => {
    const { directory, names } = sampleArchive(5);
    const known = new KnownFiles(directory);
    await look(directory, known);
    expect(await look(directory, known, 'same')).toBeUndefined();
    rmSync(join(directory, names[0]!));
    expect(await look(directory, known, 'same')).toBeUndefined();
    rmSync(join(directory, names[2]!));
    expect((await look(directory, known, 'same'))?.gaps).toHaveLength(1);
    expect(await look(directory, known, 'same')).toBeUndefined();
  });

  it('has nothing of an empty directory, and throws for one that is not there', async () => {
    const directory = scratchDir('empty');
    expect(await look(directory)).toMatchObject({ segments: 0, timelines: [], gaps: [] });
    await expect(look(join(directory, 'gone'))).rejects.toThrow('could not open directory');
  });
});

it('leaves out the oldest of many, with how many', () => {
  const size = BigInt(SEGMENT);
  const at = (n: number) => (BigInt(n) * size) as Lsn;
  const ranges = Array.from({ length: 450 }, (_, n) => {
    return { from: at(2 * n), to: at(2 * n + 1), segments: 1, size: SEGMENT };
  });
  const gaps = ranges.slice(1).map(({ from: to }) => {
    return { timeline: 1, from: (to - size) as Lsn, to };
  });
  const {
    timelines,
    gaps: told,
    more,
  } = viewOf({
    ...{ directory: '/d', systemId: 1n, serverMajor: 18, segmentSize: SEGMENT, unread: [] },
    ...{ segments: 450, size: 450 * SEGMENT, gaps, acceptedGaps: [] },
    timelines: [{ timeline: 1, ranges }],
  });
  expect(more).toEqual({ ranges: 250, gaps: 249 });
  expect(timelines[0]!.ranges.at(-1)!.from).toBe(formatLsn(at(898)));
  expect(told).toHaveLength(200);
  expect(told.at(-1)!.to).toBe(formatLsn(at(898)));
});
