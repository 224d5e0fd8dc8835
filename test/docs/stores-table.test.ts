import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { packageRoot } from '../support/scratch.js';

const rows = (
  readFileSync(join(packageRoot, 'docs/stores.md'), 'utf8').split(
    '\n## What hurts elsewhere\n',
  )[1] ?? ''
)
  .split('\n')
  .filter((line) => /^\| (?!What happened|-)/.test(line))
  .map((line) => line.split('|').map((cell) => cell.trim()));

it('each report of what hurt elsewhere has tests beside it, which are there', () => {
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
});
