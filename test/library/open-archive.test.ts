import { readdirSync, renameSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { CorruptWalError, GapError, NotSupportedError, UsageError } from '../../src/errors.js';
import { openArchive } from '../../src/library/open-archive.js';
import { walRecords } from '../../src/library/wal-records.js';
import type { Lsn } from '../../src/lsn.js';
import { edit, sampleArchive } from '../support/archives.js';
import { scratchDir } from '../support/scratch.js';

const all = async <T>(items: AsyncIterable<T>): Promise<T[]> => {
  const found: T[] = [];
  for await (const item of items) found.push(item);
  return found;
};

describe('records of an archive', () => {
  const sample = sampleArchive(4);
  // A record begins at each of them; the last one may be the switch behind.
  const { directory, lsns } = sample;

  test('all of them, in their order', async () => {
    const records = await all(walRecords({ places: directory }));
    expect(records.map(({ lsn }) => lsn)).toEqual(lsns);
    expect(records.every((r, i) => i === 0 || r.prev === lsns[i - 1])).toBe(true);
    expect(new Set(records.map((r) => r.timeline))).toEqual(new Set([1]));
  });

  test('from one position up to another, and of one kind', async () => {
    const [since, until] = [lsns[40] as Lsn, lsns[90] as Lsn];
    const records = await all(walRecords({ places: [directory], since, until }));
    expect(records.map(({ lsn }) => lsn)).toEqual(lsns.slice(40, 90));
    expect(await all(walRecords({ places: directory, select: () => false }))).toEqual([]);
  });

  test('no more is read than is taken', async () => {
    await using archive = await openArchive(directory);
    for await (const record of archive.records()) {
      expect(record.lsn).toBe(lsns[0]);
      break;
    }
    const stop = new AbortController();
    const records = archive.records({ signal: stop.signal });
    expect((await records.next()).value?.lsn).toBe(lsns[0]);
    stop.abort(new Error('enough'));
    await expect(all(records)).rejects.toThrow('enough');
  });

  test('what is damaged or missing is an error where it is', async () => {
    const damaged = sampleArchive(4, {}, scratchDir('damaged'));
    edit(join(damaged.directory, damaged.names[2] as string), (content) => {
      content[50_000] = (content[50_000] as number) ^ 1;
      return undefined;
    });
    const seen: Lsn[] = [];
    const read = async () => {
      for await (const { lsn } of walRecords({ places: damaged.directory })) seen.push(lsn);
    };
    await expect(read()).rejects.toThrow(CorruptWalError);
    expect(seen.length).toBeGreaterThan(0);
    expect(seen).toEqual(lsns.slice(0, seen.length));
    unlinkSync(join(damaged.directory, damaged.names[1] as string));
    await expect(all(walRecords({ places: damaged.directory }))).rejects.toThrow(GapError);
  });

  test('nothing is passed over in silence, and what was not asked for does no harm', async () => {
    const holed = sampleArchive(4, {}, scratchDir('holed'));
    const [start, second] = [holed.segmentStart(0), holed.segmentStart(1)];
    const read = (range: object) => all(walRecords({ places: holed.directory, ...range }));
    // Damage in front of what is wanted, and right behind it.
    const [early, late] = [lsns[5] as Lsn, lsns.find((lsn) => lsn > second + 5000n) as Lsn];
    edit(join(holed.directory, holed.names[0] as string), (content) => {
      const at = Number(early - start) + 20;
      content[at] = (content[at] as number) ^ 1;
      return undefined;
    });
    edit(join(holed.directory, holed.names[1] as string), (content) => {
      const at = Number(late - second) + 20;
      content[at] = (content[at] as number) ^ 1;
      return undefined;
    });
    const wanted = lsns.filter((lsn) => lsn >= second && lsn < late);
    const found = await read({ since: wanted[0], until: late });
    expect(found.map(({ lsn }) => lsn)).toEqual(wanted);
    await expect(read({ since: wanted[0] })).rejects.toThrow(CorruptWalError);
    // Missing where it begins, and all of it.
    unlinkSync(join(holed.directory, holed.names[1] as string));
    const third = holed.segmentStart(2);
    for (const range of [{ since: wanted[0] }, { since: wanted[0], until: third }]) {
      await expect(read(range)).rejects.toThrow(GapError);
    }
    unlinkSync(join(holed.directory, holed.names[0] as string));
    await expect(read({ since: start })).rejects.toThrow(GapError);
    const rest = lsns.filter((lsn) => lsn >= third);
    const since = rest[0] as Lsn;
    expect((await read({ since })).map(({ lsn }) => lsn)).toEqual(rest);
    // Behind the end is more, which cannot be read.
    const end = (holed.names[3] as string).replace(/\.partial$/, '');
    renameSync(join(holed.directory, holed.names[3] as string), join(holed.directory, `${end}.xz`));
    await expect(read({ since })).rejects.toThrow(NotSupportedError);
    expect(await read({ since, until: since + 1n })).toHaveLength(1);
  });

  test('options that are unknown or of the wrong kind', () => {
    const wrong = (options: object) => () => walRecords(options as { places: string });
    expect(wrong({ places: directory, sinse: 0n })).toThrow(UsageError);
    expect(wrong({ places: 3 })).toThrow(/places/);
    expect(wrong({ connection: 'host=x', since: 3 })).toThrow(/since/);
  });
});

describe('an archive', () => {
  const { directory, names, end } = sampleArchive(3, {}, scratchDir('opened'));

  test('lists, verifies, finds', async () => {
    await using archive = await openArchive(directory);
    const list = await archive.list();
    expect(list).toMatchObject({ segments: 3, gaps: [] });
    const bytes: number[] = [];
    const onProgress = (p: { bytes: number }) => void bytes.push(p.bytes);
    const { summary } = await archive.verify({ jobs: 1, onProgress });
    expect(summary).toMatchObject({ errors: 0, segments: 3 });
    expect(bytes.at(-1)).toBe(summary.bytes);
    const events = archive.find();
    let next = await events.next();
    while (!next.done) next = await events.next();
    expect(next.value).toMatchObject({ timeline: 1, complete: true, damaged: 0 });
    expect(next.value.to).toBeGreaterThanOrEqual(end);
    expect(await archive.backups()).toMatchObject({ backups: [] });
  });

  test('fetches, and takes what it is given', async () => {
    const copy = scratchDir('copy');
    await using archive = await openArchive([directory]);
    const target = join(copy, names[0] as string);
    expect(await archive.fetch(names[0] as string, target)).toMatchObject({ found: true });
    expect(await archive.fetch('00000009.history', join(copy, 'x'))).toMatchObject({
      found: false,
    });
    const other = scratchDir('other');
    await using second = await openArchive(other);
    expect(await second.push(target)).toMatchObject({ outcome: 'stored', name: names[0] });
    expect(await second.push(target)).toMatchObject({ outcome: 'present' });
    expect(await archive.cleanup(names[1] as string, { dryRun: true })).toEqual({
      ...{ removed: [names[0]], retained: [] },
    });
    expect(readdirSync(directory)).toContain(names[0]);
  });

  test('several are not one for what takes one, and a closed one is none', async () => {
    const both = await openArchive([directory, directory]);
    expect(() => both.verify()).toThrow(/takes one archive/);
    const records = both.records();
    await records.next();
    await both.close();
    await expect(all(records)).rejects.toThrow('the archive was closed');
    await expect(openArchive([])).rejects.toThrow(UsageError);
    await expect(openArchive('gopher://x')).rejects.toThrow(UsageError);
  });
});
