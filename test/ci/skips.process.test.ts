import { spawnSync } from 'node:child_process';
import { symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { packageRoot, scratchDir } from '../support/scratch.js';

const TESTS = `
  import { describe, test } from 'vitest';
  describe.skipIf(true)('with a tool (absent)', () => test('reads', () => {}));
  test('a disk', (context) => context.skip('none can be filled here'));
  test('runs', () => {});
`;

/** The lines on what was skipped, of a run of these tests. */
function skipsOf(...args: string[]): string[] {
  const root = scratchDir('skips');
  symlinkSync(join(packageRoot, 'node_modules'), join(root, 'node_modules'));
  writeFileSync(join(root, 'a.test.mjs'), TESTS);
  writeFileSync(join(root, 'vitest.config.mjs'), 'export default {};\n');
  const vitest = join(packageRoot, 'node_modules', 'vitest', 'vitest.mjs');
  const reporter = join(packageRoot, 'test', 'support', 'skips.ts');
  const { stdout, stderr } = spawnSync(
    process.execPath,
    [vitest, 'run', '--root', root, '--reporter=default', `--reporter=${reporter}`, ...args],
    { cwd: root, encoding: 'utf8', env: { PATH: process.env.PATH, NO_COLOR: '1', HOME: root } },
  );
  expect(stdout, stderr).toContain('1 passed');
  return stdout.split('\n').filter((line) => line.startsWith('skipped: '));
}

it('names every test that did not run, with the reason where there is one', () => {
  expect(skipsOf()).toEqual([
    'skipped: a.test.mjs: a disk (none can be filled here)',
    'skipped: a.test.mjs: with a tool (absent) > reads',
  ]);
});

it('is silent where only some tests were asked for', () => {
  expect(skipsOf('-t', 'runs')).toEqual([]);
});
