import { describe, expect, test } from 'vitest';
import { type Lsn, toLsn } from '../../src/lsn.js';
import {
  type ArchivedWal,
  decideMember,
  type MemberSlotKeeper,
  type ObservedMember,
} from '../../src/server/member-slot.js';
import type { SlotInfo } from '../../src/server/slots.js';
import { rootHistory, type TimelineHistory, timelineEnd } from '../../src/wal/timeline.js';

const MB = 1024 * 1024;
/** The place `offset` bytes into segment `n`. */
const at = (n: number, offset = 0): Lsn => toLsn(BigInt(n * MB + offset));
const history = (timeline: number, ...ends: [number, Lsn][]): TimelineHistory => ({
  timeline,
  ancestors: ends.map(([parent, end]) => ({ timeline: parent, end, reason: '' })),
});

const slotAt = (restartLsn: Lsn | undefined, more: Partial<SlotInfo> = {}): SlotInfo => ({
  name: 's',
  type: 'physical',
  active: false,
  activePid: undefined,
  temporary: false,
  restartLsn,
  retainedBytes: 0n,
  walStatus: restartLsn === undefined ? undefined : 'reserved',
  safeWalSize: undefined,
  invalidation: undefined,
  ...more,
});
const member = (
  slot: SlotInfo | undefined,
  more: Partial<ObservedMember> = {},
): ObservedMember => ({
  systemId: 7n,
  segmentSize: MB,
  timeline: 1,
  history: rootHistory(1),
  standby: true,
  reached: at(9),
  slot,
  ...more,
});
const archived = (lsn?: Lsn, timeline = 1): ArchivedWal => ({
  systemId: 7n,
  durable: lsn === undefined ? undefined : { lsn, timeline },
});
const decide = (seen: ObservedMember, wal: ArchivedWal, keeper: MemberSlotKeeper = 'walkeep') =>
  decideMember('s', seen, wal, keeper);

describe('what is done', () => {
  test('a slot is created where there is none, on a standby and on a primary', () => {
    expect(decide(member(undefined), archived(at(5))).action).toEqual({ kind: 'create' });
    const primary = member(undefined, { standby: false });
    expect(decide(primary, archived()).action).toEqual({ kind: 'create' });
  });

  test.each<[string, Partial<SlotInfo>]>([
    ['never used', { restartLsn: undefined, walStatus: undefined }],
    ['lost', { restartLsn: undefined, walStatus: 'lost' }],
    ['invalidated', { invalidation: 'idle_timeout' }],
  ])('one that is %s is made anew on a standby, and left alone on a primary', (_, more) => {
    const slot = slotAt(at(3), more);
    expect(decide(member(slot), archived(at(5))).action).toEqual({ kind: 'replace' });
    const primary = member(slot, { standby: false });
    expect(decide(primary, archived(at(5))).action).toBeUndefined();
  });

  test('it is advanced to what is durable', () => {
    const { action } = decide(member(slotAt(at(3))), archived(at(5, 10)));
    expect(action).toEqual({ kind: 'advance', to: at(5, 10) });
  });

  test('never beyond what the member has replayed', () => {
    const seen = member(slotAt(at(3)), { reached: at(4, 1) });
    expect(decide(seen, archived(at(5))).action).toEqual({ kind: 'advance', to: at(4, 1) });
  });

  test('never beyond the end of the archived timeline on the way of the member', () => {
    const seen = member(slotAt(at(3)), { timeline: 2, history: history(2, [1, at(4, 7)]) });
    expect(decide(seen, archived(at(5))).action).toEqual({ kind: 'advance', to: at(4, 7) });
  });

  test('where it stands already it is used, so that it does not count as idle', () => {
    const { action } = decide(member(slotAt(at(5))), archived(at(5)));
    expect(action).toEqual({ kind: 'advance', to: at(5) });
  });

  test('never back, which the server refuses', () => {
    expect(decide(member(slotAt(at(6))), archived(at(5))).action).toBeUndefined();
    const behind = member(slotAt(at(6)), { reached: at(5) });
    expect(decide(behind, archived(at(8))).action).toBeUndefined();
  });

  test.each<[string, ObservedMember, ArchivedWal]>([
    ['in use', member(slotAt(at(3), { active: true })), archived(at(5))],
    ['logical', member(slotAt(at(3), { type: 'logical' })), archived(at(5))],
    ['temporary', member(slotAt(at(3), { temporary: true })), archived(at(5))],
    ['of a member on an older timeline', member(slotAt(at(3))), archived(at(5), 2)],
    [
      'of a member on another branch',
      member(slotAt(at(3)), { timeline: 3, history: history(3, [1, at(4)]) }),
      archived(at(5), 2),
    ],
    ['before anything is durable', member(slotAt(at(3))), archived()],
  ])('one %s stays where it is', (_, seen, wal) => {
    expect(decide(seen, wal).action).toBeUndefined();
  });

  test('nothing at all where another one keeps the slots, or on another cluster', () => {
    const lost = slotAt(undefined, { walStatus: 'lost' });
    for (const slot of [undefined, lost, slotAt(undefined), slotAt(at(3))]) {
      expect(decide(member(slot), archived(at(5)), 'external').action).toBeUndefined();
      expect(decide(member(slot, { systemId: 8n }), archived(at(5))).action).toBeUndefined();
    }
  });
});

describe('what is said', () => {
  const one = { timeline: 1, history: rootHistory(1) };
  const two = { timeline: 2, history: history(2, [1, at(4, 7)]) };
  const three = { timeline: 3, history: history(3, [1, at(4, 7)]) };
  test.each<[string, ObservedMember, ArchivedWal, boolean | undefined, string]>([
    ['a slot before what is durable', member(slotAt(at(3)), one), archived(at(5)), true, 'covered'],
    ['at it', member(slotAt(at(5, 9)), one), archived(at(5, 9)), true, 'covered'],
    ['in its segment', member(slotAt(at(5, 9)), one), archived(at(5, 1)), true, 'covered'],
    ['a segment behind it', member(slotAt(at(6)), one), archived(at(5, 9)), false, 'ahead'],
    [
      'extended',
      member(slotAt(at(3), { walStatus: 'extended' })),
      archived(at(5)),
      true,
      'covered',
    ],
    ['in use', member(slotAt(at(5), { active: true })), archived(at(5)), true, 'covered'],
    ['none', member(undefined), archived(at(5)), false, 'no slot'],
    ['logical', member(slotAt(at(3), { type: 'logical' })), archived(at(5)), false, 'logical slot'],
    [
      'temporary',
      member(slotAt(at(3), { temporary: true })),
      archived(at(5)),
      false,
      'temporary slot',
    ],
    ['unused', member(slotAt(undefined)), archived(at(5)), false, 'nothing reserved'],
    ['lost', member(slotAt(undefined, { walStatus: 'lost' })), archived(at(5)), false, 'lost'],
    [
      'invalid',
      member(slotAt(at(3), { invalidation: 'conflict' })),
      archived(at(5)),
      false,
      'lost',
    ],
    [
      'soon lost',
      member(slotAt(at(3), { walStatus: 'unreserved' })),
      archived(at(5)),
      false,
      'unreserved',
    ],
    ['nothing durable', member(slotAt(at(3))), archived(), undefined, 'nothing archived'],
    [
      'another cluster',
      member(slotAt(at(3)), { systemId: 8n }),
      archived(at(5)),
      false,
      'another cluster',
    ],
    [
      'a standby that has not followed',
      member(slotAt(at(3)), one),
      archived(at(5), 2),
      false,
      'timeline behind',
    ],
    [
      'one that was promoted, before the fork',
      member(slotAt(at(3)), two),
      archived(at(5)),
      true,
      'covered',
    ],
    ['in the segment of the fork', member(slotAt(at(4, 9)), two), archived(at(5)), true, 'covered'],
    ['behind the fork', member(slotAt(at(5)), two), archived(at(5)), false, 'ahead'],
    ['promoted beside', member(slotAt(at(3)), three), archived(at(5), 2), false, 'another branch'],
  ])('%s', (_, seen, wal, covers, reason) => {
    for (const keeper of ['walkeep', 'external'] as const) {
      const { cover } = decide(seen, wal, keeper);
      expect(cover).toMatchObject({ covers, reason });
      if (covers === false) expect(cover.hint ?? '').not.toBe('');
    }
  });
});

/** Everything that can be, small: places 0 to 4, two ways, every kind of slot. */
test('no slot is ever moved over WAL that is needed, and what is said to cover has all of it', () => {
  const places = [0, 1, 2, 3, 4].map((n) => at(n, n));
  const ways = [
    { timeline: 1, history: rootHistory(1) },
    ...places.map((fork) => ({ timeline: 2, history: history(2, [1, fork]) })),
  ];
  const kinds: Partial<SlotInfo>[] = [
    {},
    { active: true },
    { walStatus: 'lost' },
    { walStatus: 'unreserved' },
    { invalidation: 'idle_timeout' },
    { type: 'logical' },
    { temporary: true },
  ];
  const wrong: unknown[] = [];
  let covered = 0;
  let advanced = 0;
  for (const way of ways)
    for (const restart of [undefined, ...places])
      for (const kind of kinds)
        for (const reached of places)
          for (const lsn of places)
            for (const timeline of [1, 2])
              for (const standby of [true, false]) {
                const slot = slotAt(restart, kind);
                const seen = member(slot, { ...way, reached, standby });
                const { action, cover } = decide(seen, archived(lsn, timeline));
                const fork = timelineEnd(way.history, timeline);
                const follows = timeline === 1 || way.timeline === 2;
                const needed = fork !== undefined && fork < lsn ? fork : lsn;
                const may = (holds: boolean) =>
                  void (holds || wrong.push([way, slot, reached, lsn]));
                if (action?.kind === 'advance') {
                  advanced++;
                  may(follows && action.to <= needed && action.to <= reached);
                  may(action.to >= (restart as Lsn));
                  may(Object.keys(kind).every((name) => name === 'walStatus'));
                }
                if (action?.kind === 'replace') may(cover.covers === false);
                if (cover.covers) {
                  covered++;
                  may(follows && restart! / BigInt(MB) <= needed / BigInt(MB));
                  may(Object.keys(kind).every((name) => name === 'active'));
                }
              }
  expect(wrong).toEqual([]);
  expect(covered).toBeGreaterThan(1000);
  expect(advanced).toBeGreaterThan(500);
});
