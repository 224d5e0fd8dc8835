import { describe, expect, test } from 'vitest';
import { isListed, parseSyncStandbyNames } from '../../src/protocol/sync-standby-names.js';

const first = (count: number, ...names: string[]) => ({ method: 'first', count, names });
const any = (count: number, ...names: string[]) => ({ method: 'any', count, names });

// syncrep_gram.y and syncrep_scanner.l.
test.each([
  ['walkeep', first(1, 'walkeep')],
  ['a, b ,c', first(1, 'a', 'b', 'c')],
  ['*', first(1, '*')],
  ['2 (a, b)', first(2, 'a', 'b')],
  ['2(a,b)', first(2, 'a', 'b')],
  ['FIRST 2 (a, b, c)', first(2, 'a', 'b', 'c')],
  ['any 1 (a, *)', any(1, 'a', '*')],
  ['  ANY  3  ( a , "b c" , "d""e" )  ', any(3, 'a', 'b c', 'd"e')],
  ['"any"', first(1, 'any')],
  ['"with, comma", "with (paren)"', first(1, 'with, comma', 'with (paren)')],
  ['node1, 2', first(1, 'node1', '2')],
])('reads %s', (setting, expected) => {
  expect(parseSyncStandbyNames(setting)).toEqual(expected);
});

test.each(['', '  ', ', a', 'a b', '"open', 'ANY (a)', 'ANY 1 ()', '2 (a', 'x (a, b)'])(
  'gives nothing for %j',
  (setting) => {
    expect(parseSyncStandbyNames(setting)).toBeUndefined();
  },
);

describe('a standby is listed', () => {
  test.each([
    ['walkeep', 'walkeep', true],
    ['WalKeep', 'walkeep', true],
    ['a, "Walkeep"', 'wALKEEP', true],
    ['ANY 1 (a, b)', 'walkeep', false],
    ['*', 'walkeep', true],
    ['*', '', true],
    ['walkeep2', 'walkeep', false],
  ])('in %s as %j: %s', (setting, name, listed) => {
    const parsed = parseSyncStandbyNames(setting);
    expect(parsed && isListed(parsed, name)).toBe(listed);
  });
});
