import { expect, test } from 'vitest';
import { CorruptWalError, RewriteError, WalRemovedError } from '../../src/errors.js';
import type { Lsn } from '../../src/lsn.js';
import { Refusals } from '../../src/receive/refusals.js';
import { rootHistory, type TimelineHistory } from '../../src/wal/timeline.js';

const V = 1000n as Lsn;
const END = 5000n as Lsn;
const refusal = (streamed = 1) => ({
  timeline: 1,
  streamed,
  verifiedEnd: V,
  end: END,
  error: new CorruptWalError('WAL record has a wrong checksum at 0/3E8', { lsn: V }),
});

test('asks three times again, then gives up', () => {
  const refusals = new Refusals();
  for (const again of [true, true, true, false]) {
    const refused = refusal();
    refusals.note(refused);
    expect(refusals.mayAskAgain(refused.error)).toBe(again);
    // The start of the bad record, a long one, is stored with every try.
    refusals.stored(4000n as Lsn, rootHistory(1));
    expect(refusals.current).toBe(refused);
  }
});

/** Timeline 2, which left timeline 1 at the LSN given. */
const forkedAt = (end: bigint): TimelineHistory => ({
  timeline: 2,
  ancestors: [{ timeline: 1, end: end as Lsn, reason: 'test' }],
});

// The timeline on which it was refused, where timeline 2 begins, what of it is stored.
test.each([
  ['behind the refused bytes', 1, rootHistory(1), END],
  ['on a timeline that left before them', 1, forkedAt(V), 10n],
  ['behind a fork among them', 1, forkedAt(3000n), 3000n],
  ['behind them on a later timeline', 1, forkedAt(9000n), END],
  ['behind them on the timeline that brought them', 2, forkedAt(3000n), END],
])('forgets when WAL is stored %s', (_name, streamed, history, written) => {
  const refusals = new Refusals();
  for (let i = 0; i < 3; i++) refusals.note(refusal(streamed));
  refusals.stored(written as Lsn, history);
  expect(refusals.current).toBeUndefined();
  const next = refusal();
  refusals.note(next);
  expect(refusals.mayAskAgain(next.error)).toBe(true);
});

test.each([
  ['before their end', 1, rootHistory(1), END - 1n],
  ['before a fork among them', 1, forkedAt(3000n), 2999n],
  ['before their end on a later timeline', 1, forkedAt(9000n), END - 1n],
  // The record begins on timeline 1, which is asked for again, and its end came on timeline 2.
  ['of the ancestor', 2, rootHistory(1), 3000n],
  ['behind the fork only, on the timeline that brought them', 2, forkedAt(3000n), END - 1n],
])('does not forget when WAL is stored %s', (_name, streamed, history, written) => {
  const refusals = new Refusals();
  const refused = refusal(streamed);
  refusals.note(refused);
  refusals.stored(written as Lsn, history);
  expect(refusals.current).toBe(refused);
});

test('other bytes than the stored ones are asked for three times again, then they stay', () => {
  const refusals = new Refusals();
  const rewrite = () => new RewriteError('other bytes', { lsn: END });
  for (const again of [true, true, true, false]) {
    const error = rewrite();
    refusals.noteRewrite(error);
    expect(refusals.mayAskAgain(error)).toBe(again);
    expect(refusals.final(error)).toBe(error);
    refusals.stored(END, rootHistory(1));
  }
  refusals.stored((END + 1n) as Lsn, rootHistory(1));
  const error = rewrite();
  refusals.noteRewrite(error);
  expect(refusals.mayAskAgain(error)).toBe(true);
  expect(refusals.mayAskAgain(rewrite())).toBe(false);
});

test('other errors are not asked about, and stay what they are', () => {
  const refusals = new Refusals();
  const other = new CorruptWalError('another');
  expect(refusals.mayAskAgain(other)).toBe(false);
  refusals.note(refusal());
  expect(refusals.mayAskAgain(other)).toBe(false);
  expect(refusals.final(other)).toBe(other);
});

test('that the WAL was bad outweighs that it is gone by now', () => {
  const refusals = new Refusals();
  const refused = refusal();
  refusals.note(refused);
  const final = refusals.final(new WalRemovedError('requested WAL segment has been removed'));
  expect(final).toBeInstanceOf(CorruptWalError);
  expect(final.message).toMatch(
    /was damaged, and the server no longer has it: WAL record has a wrong checksum/,
  );
  expect(final).toMatchObject({ lsn: V, cause: refused.error });
});
