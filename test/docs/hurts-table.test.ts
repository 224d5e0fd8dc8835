import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { packageRoot } from '../support/scratch.js';

/** The table of what hurt users of other tools. */
const rowsOf = (document: string) =>
  (readFileSync(join(packageRoot, document), 'utf8').split('\n## What hurts elsewhere\n')[1] ?? '')
    .split('\n')
    .filter((line) => /^\| (?!What happened|-)/.test(line))
    .map((line) => line.split('|').map((cell) => cell.trim()));

it.each(['docs/stores.md', 'docs/backups.md', 'docs/reliability.md'])(
  'each report in %s of what hurt elsewhere has tests beside it, which are there',
  (document) => {
    const rows = rowsOf(document);
    expect(rows.length).toBeGreaterThan(15);
    for (const [, what, , here, tests = ''] of rows) {
      const named = [...tests.matchAll(/`(test\/[^`]+\.ts)`/g)].map(([, path]) => path as string);
      expect(named.length, what).toBeGreaterThan(0);
      expect(here, what).not.toBe('');
      for (const path of named) {
        const there = existsSync(join(packageRoot, path));
        expect(there, `${path}, beside "${what}"`).toBe(true);
        expect(readFileSync(join(packageRoot, path), 'utf8'), path).toMatch(/\b(it|test)\b[.(]/);
      }
    }
  },
);

it('the tests that docs/reliability.md names by their titles have them', () => {
  const rows = rowsOf('docs/reliability.md');
  for (const [, what, where, , tests = ''] of rows) {
    expect(where, what).not.toBe('');
    const named = [...tests.matchAll(/`(test\/[^`]+\.ts)` "([^"]+)"/g)];
    expect(named.length, what).toBe(tests.split('`test/').length - 1);
    for (const [, path = '', title = ''] of named) {
      const text = readFileSync(join(packageRoot, path), 'utf8');
      expect(text.includes(`${title}'`) || text.includes(`${title}\``), `${path}: ${title}`).toBe(
        true,
      );
    }
  }
});
