import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ArchiveStatus } from '../../../src/serve/status.js';
import { ticksOf } from '../../../src/serve/web/axis.js';
import {
  type Bar,
  barOf,
  type Drawn,
  LEAST,
  type SegmentKind,
} from '../../../src/serve/web/bar.js';
import { DAY, dead, empty, HOUR, iso, MINUTE, serverOf, withGaps } from './facts.js';

const NOW = Date.parse('2026-03-04T12:34:56Z');
const at = (ms: number) => iso(NOW - ms);

const nothing: ArchiveStatus = {
  ...{ readAt: at(0), segments: 0, bytes: 0, timelines: [], gaps: [], backups: [], windows: [] },
  ...{ places: [], besideWindows: [], latest: 2 },
};

/** Of an archive whose server is not heard of. */
const drawn = (archive: Partial<ArchiveStatus>, more: Partial<Drawn> = {}): Bar => {
  const bar = barOf(
    { archive: { ...nothing, ...archive }, rpoSeconds: 0, rpoLimitSeconds: 30, ...more },
    NOW,
  );
  if (!bar) throw new Error('nothing drawn');
  return bar;
};

const of = (bar: Bar, kind: SegmentKind) => bar.segments.filter((one) => one.kind === kind);
const times = (bar: Bar, kind: SegmentKind) => of(bar, kind).map(({ from, to }) => [from, to]);

describe('the bar', () => {
  it('is none where nothing is known or archived', () => {
    expect(barOf({ rpoSeconds: 0, rpoLimitSeconds: 30 }, NOW)).toBeUndefined();
    expect(barOf(empty(NOW), NOW)).toBeUndefined();
  });

  it('goes from the oldest WAL to now, solid from the first backup on', () => {
    const bar = barOf(serverOf(NOW), NOW) as Bar;
    expect([bar.from, bar.to]).toEqual([NOW - 13.5 * DAY, NOW]);
    expect(bar.segments.map(({ kind }) => kind)).toEqual(['wal', 'window', 'live']);
    expect(bar.segments[0]).toMatchObject({ x0: 0, x1: expect.closeTo(0.5 / 13.5, 6) });
    expect(bar.segments.at(-1)?.x1).toBe(1);
  });

  it('draws gaps exactly where they are, over all else', () => {
    const server = withGaps(NOW);
    const bar = barOf(server, NOW) as Bar;
    const { gaps } = server.archive as ArchiveStatus;
    expect(times(bar, 'gap')).toEqual(
      gaps.map(({ after, before }) => [Date.parse(after ?? ''), Date.parse(before ?? '')].sort()),
    );
    expect(of(bar, 'gap').map(({ accepted }) => accepted)).toEqual([true, false]);
    // WAL behind a gap is of no use until the next backup.
    expect(of(bar, 'wal').length).toBe(3);
  });

  it('places a gap that no commit is next to by those beyond, else at the ends', () => {
    const range = (from: string, to: string, first?: string, last?: string) => ({
      ...{ from, to, segments: 1, bytes: 1 },
      ...(first === undefined ? {} : { firstCommit: first }),
      ...(last === undefined ? {} : { lastCommit: last }),
    });
    const gap = { timeline: 1, from: '0/3000000', to: '0/4000000', segments: 1, accepted: false };
    const ranges = [
      range('0/1000000', '0/2000000', at(9 * HOUR), at(8 * HOUR)),
      range('0/2000000', '0/3000000'),
      range('0/4000000', '0/5000000', at(6 * HOUR), at(5 * HOUR)),
    ];
    const bar = drawn({ timelines: [{ timeline: 1, ranges }], gaps: [gap] });
    expect(times(bar, 'gap')).toEqual([[NOW - 8 * HOUR, NOW - 6 * HOUR]]);
    const alone = drawn({ gaps: [gap] });
    expect(of(alone, 'gap')).toMatchObject([{ x0: 0, x1: 1 }]);
  });

  it('shows the shortest gap, and those too close to each other as one', () => {
    const gap = (ms: number) => ({
      ...{ timeline: 1, from: '0/0', to: '0/1', segments: 1, accepted: false },
      ...{ after: at(ms + 1000), before: at(ms) },
    });
    const windows = [
      { from: at(365 * DAY), to: at(0), backup: 'b', place: 'directory', timeline: 1 },
    ];
    const bar = drawn({ windows, gaps: [gap(100 * DAY), gap(100 * DAY - HOUR), gap(0)] });
    const gaps = of(bar, 'gap');
    expect(gaps.map(({ gaps }) => gaps)).toEqual([2, 1]);
    for (const { x0, x1 } of gaps) expect(x1 - x0).toBeGreaterThan(LEAST - 1e-9);
    expect(gaps[1]?.x1).toBe(1);
  });

  it('goes on behind the last window only while that is known to be durable', () => {
    const server = serverOf(NOW);
    expect(of(barOf(server, NOW) as Bar, 'live')).toMatchObject([{ to: NOW }]);
    const late = barOf({ ...server, rpoSeconds: 10 }, NOW) as Bar;
    expect(of(late, 'live')).toMatchObject([{ to: NOW - 10_000 }]);
    // Since "serve" began nobody said so.
    const { recoveryAge: _, ...unseen } = server.receiver as NonNullable<typeof server.receiver>;
    const began = barOf({ ...server, receiver: unseen }, NOW) as Bar;
    expect(of(began, 'live')).toEqual([]);
    expect(of(began, 'behind')).toMatchObject([{ from: NOW - 25_000, to: NOW }]);
    // What came behind a gap belongs to no window.
    const archive = server.archive as ArchiveStatus;
    const gap = { timeline: 2, from: '0/0', to: '0/1', segments: 1, accepted: true, after: at(20) };
    const broken = barOf({ ...server, archive: { ...archive, gaps: [gap] } }, NOW) as Bar;
    expect(of(broken, 'live')).toEqual([]);
    const other = { ...archive, latest: 3 };
    expect(of(barOf({ ...server, archive: other }, NOW) as Bar, 'live')).toEqual([]);
  });

  it('shows what is not durable for longer than allowed, however long the bar is', () => {
    const [behind] = of(barOf(dead(NOW), NOW) as Bar, 'behind');
    expect(behind?.x1).toBe(1);
    expect(1 - (behind?.x0 ?? 1)).toBeGreaterThan(LEAST - 1e-9);
  });

  it('marks backups and forks, of many at one place the one that says most', () => {
    const bar = barOf(serverOf(NOW), NOW) as Bar;
    expect(bar.marks.filter(({ kind }) => kind === 'backup').length).toBe(14);
    expect(bar.marks.filter(({ kind }) => kind === 'fork')).toMatchObject([
      { label: 'TL 2', at: NOW - 5 * DAY },
    ]);
    const backup = (ms: number, type: 'full' | 'incremental', more = {}) => ({
      ...{
        id: `${ms}`,
        place: 'directory',
        type,
        state: 'complete' as const,
        kept: false,
        reaches: [],
        endedAt: at(ms),
        ...more,
      },
    });
    const good = { restorableTo: at(0) };
    const many = drawn({
      backups: [
        ...[backup(30 * DAY, 'full', good), backup(10 * DAY + 2, 'incremental', good)],
        ...[backup(10 * DAY + 1, 'full', good), backup(10 * DAY, 'full'), backup(1, 'full')],
      ],
    });
    expect(many.marks.map(({ label, usable }) => [label, usable])).toEqual([
      [`${30 * DAY}`, true],
      [`${10 * DAY + 1}`, true],
      ['1', false],
    ]);
  });

  it('draws nothing of a time that is none', () => {
    const windows = [
      { from: 'yesterday', to: at(0), backup: 'b', place: 'directory', timeline: 1 },
    ];
    expect(of(drawn({ windows, backups: [{ ...backupAt(HOUR) }] }), 'window')).toEqual([]);
  });
});

const backupAt = (ms: number) => ({
  ...{
    id: 'b',
    place: 'directory',
    type: 'full' as const,
    state: 'complete' as const,
    endedAt: at(ms),
  },
  ...{ kept: false, reaches: [] },
});

describe('whatever an archive holds', () => {
  const time = fc.integer({ min: -HOUR, max: 400 * DAY }).map(at);
  const pair = fc.tuple(time, time).map((both) => [...both].sort() as [string, string]);
  const timeline = fc.integer({ min: 1, max: 3 });
  const archives = fc.record({
    windows: fc.array(
      fc
        .tuple(pair, timeline)
        .map(([[from, to], tl]) => ({ from, to, backup: 'b', place: 'directory', timeline: tl })),
      { maxLength: 8 },
    ),
    gaps: fc.array(
      fc
        .tuple(pair, timeline, fc.boolean(), fc.nat(3))
        .map(([[after, before], tl, accepted, ends]) => ({
          ...{ timeline: tl, from: '0/1000000', to: '0/2000000', segments: 1, accepted },
          ...(ends & 1 ? {} : { after }),
          ...(ends & 2 ? {} : { before }),
        })),
      { maxLength: 8 },
    ),
    timelines: fc.array(
      fc
        .tuple(timeline, pair, fc.option(timeline))
        .map(([tl, [firstCommit, lastCommit], parent]) => ({
          timeline: tl,
          ...(parent === null ? {} : { parent }),
          ranges: [{ from: '0/1', to: '0/2', segments: 1, bytes: 1, firstCommit, lastCommit }],
        })),
      { maxLength: 5 },
    ),
    backups: fc.array(fc.integer({ min: 0, max: 400 * DAY }).map(backupAt), { maxLength: 20 }),
  });
  const lags = fc.record({ seconds: fc.nat(10_000), seen: fc.boolean(), timeline });
  const barsOf = (
    archive: Partial<ArchiveStatus>,
    lag: { seconds: number; seen: boolean; timeline: number },
  ) =>
    barOf(
      {
        archive: { ...nothing, ...archive },
        ...{ rpoSeconds: lag.seconds, rpoLimitSeconds: 30 },
        receiver: {
          ...{ state: 'streaming', segments: 0, connections: 1 },
          ...(lag.seen ? { recoveryAge: lag.seconds * 1000 } : {}),
          position: {
            ...{ received: '0/1', written: '0/1', flushed: '0/1', serverEnd: '0/1' },
            timeline: lag.timeline,
          },
        },
      },
      NOW,
    );

  it('segments are in range and in order, and do not overlap; marks and ticks are in range', () => {
    fc.assert(
      fc.property(archives, lags, (archive, lag) => {
        const bar = barsOf(archive, lag);
        if (!bar) return;
        let last = 0;
        for (const { x0, x1 } of bar.segments) {
          expect(x0).toBeGreaterThanOrEqual(last);
          expect(x1).toBeGreaterThan(x0);
          last = x1;
        }
        expect(last).toBeLessThanOrEqual(1);
        for (const { x } of [...bar.marks, ...bar.ticks]) {
          expect(x).toBeGreaterThanOrEqual(0);
          expect(x).toBeLessThanOrEqual(1);
        }
      }),
      { numRuns: 500 },
    );
  });

  it('every gap is red where it is, and wide enough to be seen', () => {
    fc.assert(
      fc.property(archives, lags, (archive, lag) => {
        const bar = barsOf(archive, lag);
        if (!bar) {
          expect(archive.gaps).toEqual([]);
          return;
        }
        const x = (ms: number) => Math.min(1, Math.max(0, (ms - bar.from) / (bar.to - bar.from)));
        const red = of(bar, 'gap');
        for (const { x0, x1 } of red) expect(x1 - x0).toBeGreaterThan(LEAST - 1e-9);
        for (const { after, before } of archive.gaps) {
          if (after === undefined || before === undefined) continue;
          const middle = (x(Date.parse(after)) + x(Date.parse(before))) / 2;
          expect(red.some(({ x0, x1 }) => x0 <= middle + 1e-9 && middle - 1e-9 <= x1)).toBe(true);
        }
        if (archive.gaps.length > 0) expect(red.length).toBeGreaterThan(0);
      }),
      { numRuns: 500 },
    );
  });

  it('nothing is solid that is in no window and not received since', () => {
    fc.assert(
      fc.property(archives, lags, (archive, lag) => {
        const bar = barsOf(archive, lag);
        if (!bar) return;
        const latest = Math.max(...archive.windows.map(({ to }) => Date.parse(to)));
        for (const { kind, x0, x1 } of bar.segments) {
          const middle = bar.from + ((x0 + x1) / 2) * (bar.to - bar.from);
          if (kind === 'window') {
            const inside = archive.windows.some(
              ({ from, to }) => Date.parse(from) <= middle + 1 && middle - 1 <= Date.parse(to),
            );
            expect(inside).toBe(true);
          } else if (kind === 'live') {
            expect(lag.seen).toBe(true);
            expect(middle).toBeGreaterThan(latest - 1);
            expect(middle).toBeLessThan(NOW - lag.seconds * 1000 + 1);
          }
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe('ticks', () => {
  const labels = (span: number) => ticksOf(NOW - span, NOW).map(({ label }) => label);

  it('are times a person reads, in UTC', () => {
    expect(labels(2 * MINUTE)).toEqual([
      ...['4 Mar 12:33:00', '12:33:15', '12:33:30', '12:33:45', '12:34:00', '12:34:15'],
      ...['12:34:30', '12:34:45'],
    ]);
    expect(labels(10 * MINUTE)).toEqual(['4 Mar 12:26', '12:28', '12:30', '12:32', '12:34']);
    expect(labels(HOUR)).toEqual(['4 Mar 11:40', '11:50', '12:00', '12:10', '12:20', '12:30']);
    expect(labels(DAY)).toEqual([
      '3 Mar 15:00',
      '18:00',
      '21:00',
      '4 Mar',
      '03:00',
      '06:00',
      '09:00',
    ]);
    expect(labels(14 * DAY)).toEqual([
      '19 Feb',
      '21 Feb',
      '23 Feb',
      '25 Feb',
      '27 Feb',
      '1 Mar',
      '3 Mar',
    ]);
    expect(labels(365 * DAY)).toEqual(['May 2025', 'Jul 2025', 'Sep 2025', 'Nov 2025', '2026']);
    expect(labels(20 * 365 * DAY).every((label) => /^20\d\d$/.test(label))).toBe(true);
  });

  it('are never many, and always in order', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 1e12 }),
        fc.integer({ min: 0, max: 4e12 }),
        (span, from) => {
          const ticks = ticksOf(from, from + span);
          expect(ticks.length).toBeLessThanOrEqual(17);
          expect(ticks.map(({ x }) => x)).toEqual(
            [...ticks.map(({ x }) => x)].sort((a, b) => a - b),
          );
        },
      ),
    );
    expect(ticksOf(5, 5)).toEqual([]);
  });
});
