import { describe, expect, it } from 'vitest';
import {
  type JudgedBackup,
  planRetention,
  type RetentionInput,
} from '../../../src/archive/backups/retention.js';
import type { Lsn } from '../../../src/lsn.js';
import { randomNumbers } from '../../support/archives.js';
import { RetentionWorld } from './retention-model.js';

/** What is wrong with the plans for one random life. */
function live(seed: number, setsClock: boolean): string[] {
  const random = randomNumbers(Math.imul(seed, 2654435761));
  const world = new RetentionWorld(random, setsClock);
  for (let round = 0; round < 3; round++) {
    const steps = 5 + Math.floor(random() * 40);
    for (let n = 0; n < steps; n++) world.step();
    const wrong = world.judge(planRetention(world.input()));
    if (wrong.length > 0) return [`round ${round}, ${JSON.stringify(world.rules)}`, ...wrong];
  }
  return [];
}

const DAY = 86_400_000;
const NOW = Date.UTC(2026, 10, 28);
const daysAgo = (days: number) => new Date(NOW - days * DAY);

type Given = Partial<JudgedBackup> & {
  ago: number;
  at: number;
  timeline?: number;
  parent?: string;
};

function backup(id: string, { ago, at, timeline = 1, parent, ...rest }: Given): JudgedBackup {
  const [start, end] = [BigInt(at) as Lsn, BigInt(at + 1) as Lsn];
  // The server's clock is wrong by years: nothing is to depend on it.
  const time = '2001-01-01T00:00:00Z';
  const record = {
    ...{ systemId: 1n, wal: 'archive' as const, walRanges: [{ timeline, start, end }] },
    ...{ start: { lsn: start, timeline, time }, end: { lsn: end, timeline, time } },
    ...(parent === undefined ? {} : { parent }),
  };
  return { id, state: 'complete', kept: false, stored: daysAgo(ago), record, ...rest };
}

/** Segments of 10, from a day to a day. */
function wal(timeline: number, segments: number, first = 0, ago = 0): RetentionInput['wal'] {
  return {
    ...{ systemId: 1n, segmentSize: 10, histories: [] },
    segments: Array.from({ length: segments }, (_, n) => ({
      ...{ timeline, segment: BigInt(first + n), stored: daysAgo(ago + segments - 1 - n) },
    })),
  };
}

function plan(input: Partial<RetentionInput>) {
  const given = { now: new Date(NOW), backups: [], leases: [], wal: wal(1, 20), ...input };
  const { removedBackups, removedWal, nothing } = planRetention(given);
  const names = removedWal.map((one) => `${one.timeline}/${one.segment}`);
  return { backups: removedBackups.map((b) => b.id), wal: names, nothing };
}

describe('a plan of retention', () => {
  it('keeps all that a model keeps of random lives, and nothing else', () => {
    for (let seed = 1; seed <= 10_000; seed++) expect(live(seed, false), `${seed}`).toEqual([]);
  });

  it('keeps what must stay also where the clock of the place is set', () => {
    for (let seed = 1; seed <= 3_000; seed++) expect(live(seed, true), `${seed}`).toEqual([]);
  });

  it('begins a window with the backup that had ended then, not with one that was running', () => {
    const backups = [
      backup('a', { ago: 15, at: 40 }),
      backup('b', { ago: 9, at: 100 }),
      backup('c', { ago: 6, at: 130 }),
    ];
    const all = plan({ backups, window: 7 * DAY });
    expect(all).toMatchObject({ backups: ['a'] });
    expect(all.wal).toEqual(Array.from({ length: 10 }, (_, n) => `1/${n}`));
  });

  it('removes nothing without a complete backup, or with a lease that cannot be read', () => {
    const damaged = backup('a', { ago: 30, at: 40, state: 'damaged' });
    expect(plan({ backups: [damaged], window: DAY })).toMatchObject({ backups: [], wal: [] });
    const backups = [backup('a', { ago: 15, at: 40 }), backup('b', { ago: 3, at: 160 })];
    const lease = { id: 'r', kind: 'restore' as const, needs: undefined, seen: new Date(NOW) };
    const withLease = plan({ backups, window: DAY, leases: [lease] });
    expect(withLease).toMatchObject({ backups: [], wal: [] });
    expect(withLease.nothing).toContain('lease');
  });

  it('counts only what can be restored: WAL that is missing makes a backup none', () => {
    const backups = [backup('a', { ago: 15, at: 40 }), backup('b', { ago: 3, at: 500 })];
    expect(plan({ backups, redundancy: 1 })).toMatchObject({ backups: [] });
  });

  it('after an upgrade keeps the newest of each cluster', () => {
    const old = backup('old', { ago: 40, at: 40 });
    const older = backup('older', { ago: 50, at: 20 });
    const [fresh] = [backup('new', { ago: 1, at: 10 })];
    fresh!.record!.systemId = 2n;
    const given = { ...wal(1, 5), systemId: 2n };
    expect(plan({ backups: [older, old, fresh!], wal: given, window: DAY })).toMatchObject({
      backups: ['older'],
    });
  });

  it('keeps a pinned backup with no more WAL than it needs', () => {
    const backups = [
      backup('pinned', { ago: 15, at: 40, kept: true }),
      backup('b', { ago: 5, at: 150 }),
    ];
    const all = plan({ backups, redundancy: 1 });
    expect(all.backups).toEqual([]);
    expect(all.wal).toEqual(
      Array.from({ length: 15 }, (_, n) => `1/${n}`).filter((name) => name !== '1/4'),
    );
  });

  it('removes children before their parents', () => {
    const backups = [
      backup('a', { ago: 15, at: 40 }),
      backup('b', { ago: 14, at: 50, parent: 'a' }),
      backup('c', { ago: 13, at: 60, parent: 'b' }),
      backup('d', { ago: 3, at: 160 }),
    ];
    expect(plan({ backups, redundancy: 1 }).backups).toEqual(['c', 'b', 'a']);
  });

  it('keeps an abandoned branch for as long as the window has commits of it', () => {
    const [one, two] = [wal(1, 10, 0, 8), wal(2, 9, 8, 0)];
    const forked = [{ timeline: 1, end: 85n as Lsn, reason: '' }];
    const given: RetentionInput['wal'] = {
      ...{ systemId: 1n, segmentSize: 10, segments: [...one.segments, ...two.segments] },
      histories: [{ timeline: 2, ancestors: forked, stored: daysAgo(9) }],
    };
    const backups = [
      backup('a', { ago: 12, at: 50 }),
      backup('b', { ago: 2, at: 150, timeline: 2 }),
    ];
    const last = (window: number) => plan({ backups, wal: given, window: window * DAY }).wal;
    expect(last(9)).not.toContain('1/9');
    expect(last(7)).toContain('1/9');
    expect(last(7)).not.toContain('1/8');
    expect(last(1)).toContain('2/14');
  });
});
