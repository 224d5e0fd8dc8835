import { execFileSync } from 'node:child_process';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { quoteWord, splitWords } from '../src/words.js';

it('has the words that a shell would find', () => {
  for (const text of [
    `a b  c`,
    ` 'a b' "c d" `,
    `a'b'"c"d`,
    `''`,
    `"" x`,
    `"a\\"b\\\\c" a\\ b \\'`,
    '"a\\$b\\`c\\d" "C:\\dir"',
    `-o 'IdentityFile=/x y/z'`,
    `vault  kv get -field='a b' e\\ f`,
  ]) {
    const printed = execFileSync('sh', ['-c', `for w in ${text}; do printf '%s\\0' "$w"; done`]);
    expect(splitWords(text), text).toEqual(printed.toString().split('\0').slice(0, -1));
  }
});

it('expands nothing', () => {
  const words = ['$HOME', '$(id)', '>x', ';y', '*', '~'];
  expect(splitWords(words.join(' '))).toEqual(words);
});

it('has none of what lacks its end', () => {
  for (const text of [`'a`, `"a`, `a 'b`, `a "b\\"`, 'a\\'])
    expect(splitWords(text)).toBeUndefined();
});

it('finds the words that were quoted', () => {
  fc.assert(
    fc.property(fc.array(fc.string()), (words) => {
      expect(splitWords(words.map(quoteWord).join(' '))).toEqual(words);
    }),
  );
});
