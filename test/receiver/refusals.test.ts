import { expect, test } from 'vitest';
import { CorruptWalError, WalRemovedError } from '../../src/errors.js';
import { Refusals } from '../../src/receiver/refusals.js';
import type { Lsn } from '../../src/wal/lsn.js';

const V = 1000n as Lsn;
const END = 5000n as Lsn;
const refusal = () => ({
  timeline: 1,
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
    refusals.stored(4000n as Lsn, 1);
    expect(refusals.current).toBe(refused);
  }
});

test.each([
  ['behind the refused bytes', END, 1],
  ['on another timeline', 10n as Lsn, 2],
])('forgets when WAL is stored %s', (_name, written, timeline) => {
  const refusals = new Refusals();
  for (let i = 0; i < 3; i++) refusals.note(refusal());
  refusals.stored(written, timeline);
  expect(refusals.current).toBeUndefined();
  const next = refusal();
  refusals.note(next);
  expect(refusals.mayAskAgain(next.error)).toBe(true);
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
  expect(final.message).toMatch(/keeps sending damaged WAL: WAL record has a wrong checksum/);
  expect(final).toMatchObject({ lsn: V, cause: refused.error });
});
