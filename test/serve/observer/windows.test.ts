import { expect, it } from 'vitest';
import { type BackupReach, mergeWindows, windowsOf } from '../../../src/serve/observer/windows.js';
import { randomNumbers } from '../../support/archives.js';

const reach = (from: number, to: number, more: Partial<BackupReach> = {}): BackupReach => ({
  ...{ backup: `b${from}`, place: 'directory', from, to, timeline: 1, beside: false },
  ...more,
});
const iso = (time: number) => new Date(time).toISOString();
const shown = (reaches: BackupReach[]) =>
  mergeWindows(reaches).map(({ from, to, backup }) => [Date.parse(from), Date.parse(to), backup]);

it('puts together what touches, and keeps apart what does not', () => {
  expect(shown([reach(10, 20), reach(30, 50), reach(20, 25)])).toEqual([
    [10, 25, 'b10'],
    [30, 50, 'b30'],
  ]);
});

it('has a moment for a backup that no commit comes behind', () => {
  expect(shown([reach(10, 4)])).toEqual([[10, 10, 'b10']]);
  expect(mergeWindows([])).toEqual([]);
});

it('covers exactly the moments that some backup leads to, the oldest first, and none twice', () => {
  const random = randomNumbers(7);
  for (let round = 0; round < 500; round++) {
    const reaches = Array.from({ length: Math.floor(random() * 8) }, () => {
      const from = Math.floor(random() * 60);
      return reach(from, from + Math.floor(random() * 20));
    });
    const windows = mergeWindows(reaches).map((w) => [Date.parse(w.from), Date.parse(w.to)]);
    for (let time = 0; time < 90; time += 0.5) {
      const isCovered = reaches.some(({ from, to }) => from <= time && time <= to);
      const inside = windows.filter(([from, to]) => from! <= time && time <= to!);
      expect(inside.length, JSON.stringify({ reaches, time })).toBe(isCovered ? 1 : 0);
    }
    windows.forEach(([from], i) => {
      if (i > 0) expect(from).toBeGreaterThan(windows[i - 1]![1]!);
    });
    for (const { backup, from } of mergeWindows(reaches)) {
      expect(reaches.some((r) => r.backup === backup && iso(r.from) === from)).toBe(true);
    }
  }
});

it('has timelines beside the way apart, and not what is on it', () => {
  const reaches = [
    reach(10, 30, { timeline: 2 }),
    reach(10, 20, { timeline: 1 }),
    reach(10, 40, { timeline: 3, beside: true }),
    reach(35, 60, { timeline: 3, beside: true }),
  ];
  const { windows, besideWindows } = windowsOf(reaches, 2);
  expect(windows).toMatchObject([{ from: iso(10), to: iso(30), timeline: 2 }]);
  expect(besideWindows).toMatchObject([{ from: iso(10), to: iso(60), timeline: 3 }]);
  expect(windowsOf([], undefined)).toEqual({ windows: [], besideWindows: [] });
});
