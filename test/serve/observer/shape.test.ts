import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { openDirectory } from '../../../src/archive/places/directory-archive.js';
import { readCatalog } from '../../../src/archive/read-catalog.js';
import { shapeOf, shapeOfCatalog } from '../../../src/serve/observer/shape.js';
import { segmentFileName } from '../../../src/wal/file-name.js';
import { randomNumbers } from '../../support/archives.js';
import { scratchDir } from '../../support/scratch.js';

/** What nothing tells otherwise. */
const SEGMENT = 16 * 1024 * 1024;
const shape = (...names: string[]) =>
  shapeOf(
    names.map((name) => ({ name, kind: 'file' })),
    SEGMENT,
  );
const name = (timeline: number, segment: number) =>
  segmentFileName(timeline, BigInt(segment), SEGMENT);

it('stays while segments come at the end and go at the begin', () => {
  const before = shape(name(1, 254), name(1, 255), `${name(1, 256)}.partial`);
  expect(shape(name(1, 255), name(1, 256), `${name(1, 257)}.partial`, 'x', '.y')).toBe(before);
  expect(shape(name(1, 255), `${name(1, 256)}.gz`)).toBe(before);
});

it('is another one where a segment is missing, or a timeline or a history comes', () => {
  const all = [1, 2, 3, 4].map((n) => name(1, n));
  const before = shape(...all);
  expect(shape(...all.toSpliced(1, 1))).not.toBe(before);
  expect(shape(...all, name(2, 4))).not.toBe(before);
  expect(shape(...all, '00000002.history')).not.toBe(before);
  expect(shape(...all, name(1, 9))).not.toBe(before);
});

it('is the same only where the same WAL is missing', async () => {
  const random = randomNumbers(11);
  const directory = scratchDir('shape');
  const archive = openDirectory(directory);
  const present = new Set<string>();
  const toggle = (file: string): void => {
    if (present.delete(file)) rmSync(join(directory, file));
    else {
      present.add(file);
      writeFileSync(join(directory, file), '');
    }
  };
  // 2 leaves 1 within segment 9, 3 leaves 2 within segment 14.
  writeFileSync(join(directory, '00000002.history'), '1\t0/9000100\tx\n');
  writeFileSync(join(directory, '00000003.history'), '1\t0/9000100\tx\n2\t0/E000100\ty\n');
  for (let n = 3; n <= 9; n++) toggle(name(1, n));
  for (let n = 9; n <= 14; n++) toggle(name(2, n));
  for (let n = 14; n <= 18; n++) toggle(name(3, n));
  const seen = new Map<string, string>();
  let same = 0;
  for (let round = 0; round < 400; round++) {
    const [from, to] = [
      [2, 10],
      [9, 15],
      [14, 20],
    ][Math.floor(random() * 3)] as [number, number];
    const timeline = from === 2 ? 1 : from === 9 ? 2 : 3;
    // Ends come and go more often than what is between them.
    const n =
      random() < 0.5 ? from + 1 + Math.floor(random() * (to - from)) : random() < 0.5 ? from : to;
    toggle(name(timeline, n));
    const catalog = await readCatalog(archive);
    const { gaps } = catalog;
    const told = JSON.stringify(gaps, (_, value) =>
      typeof value === 'bigint' ? `${value}` : value,
    );
    const now = shapeOf(await archive.list(), SEGMENT);
    expect(shapeOfCatalog(catalog)).toBe(now);
    if (seen.has(now)) same += 1;
    // Of the oldest timeline the begin, and of the newest the end, is no gap.
    expect(seen.get(now) ?? told, now).toBe(told);
    seen.set(now, told);
  }
  expect(same).toBeGreaterThan(50);
});
