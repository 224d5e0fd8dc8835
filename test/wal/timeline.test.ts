import { expect, test } from 'vitest';
import { ParseError } from '../../src/errors.js';
import {
  childTimeline,
  isInHistory,
  parseTimelineHistory,
  rootHistory,
  timelineAt,
  timelineEnd,
} from '../../src/wal/timeline.js';
import { loadFixture } from './fixtures.js';

const TEXT = `1\t0/3000000\tno recovery target specified

# a comment
3\t0/5000158\tbefore 2026-11-20 21:00:00+00
`;

test('a history file as servers write it', () => {
  const history = parseTimelineHistory(4, TEXT);
  expect(history).toEqual({
    timeline: 4,
    ancestors: [
      { timeline: 1, end: 0x300_0000n, reason: 'no recovery target specified' },
      { timeline: 3, end: 0x500_0158n, reason: 'before 2026-11-20 21:00:00+00' },
    ],
  });
  expect(timelineAt(history, 0x2ff_ffffn)).toBe(1);
  expect(timelineAt(history, 0x300_0000n)).toBe(3);
  expect(timelineAt(history, 0x500_0157n)).toBe(3);
  expect(timelineAt(history, 0x500_0158n)).toBe(4);
  expect(timelineEnd(history, 3)).toBe(0x500_0158n);
  expect(timelineEnd(history, 4)).toBeUndefined();
  expect(timelineEnd(history, 2)).toBeUndefined();
  expect([1, 2, 3, 4, 5].map((t) => isInHistory(history, t))).toEqual([
    true,
    false,
    true,
    true,
    false,
  ]);
  expect([1, 2, 3, 4].map((t) => childTimeline(history, t))).toEqual([3, undefined, 4, undefined]);
});

test('of a real promotion', () => {
  const { history } = loadFixture('promoted');
  expect(history?.ancestors).toHaveLength(1);
  expect(history?.ancestors[0]?.timeline).toBe(1);
});

test('no ancestors', () => {
  expect(parseTimelineHistory(2, '\n# nothing\n')).toEqual(rootHistory(2));
  expect(timelineAt(rootHistory(7), 0n)).toBe(7);
});

test.each([
  ['1 0/3000000\n1 0/4000000', 'a timeline twice'],
  ['2 0/3000000\n1 0/4000000', 'timelines that go back'],
  ['1 0/3000000\n2 0/2000000', 'switch points that go back'],
  ['4 0/3000000', 'its own timeline as an ancestor'],
  ['0 0/3000000', 'timeline 0'],
  ['4294967296 0/1', 'a timeline of 33 bits'],
  ['1', 'no switch point'],
  ['1 3000000', 'no LSN'],
  ['one 0/1', 'no number'],
])('%j has %s', (text) => {
  expect(() => parseTimelineHistory(4, text)).toThrow(ParseError);
});
