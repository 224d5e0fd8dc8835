import { expect, test } from 'vitest';
import { fixtureArchive } from '../support/archives.js';
import { scratchDir } from '../support/scratch.js';
import { run } from './run.js';

const directory = fixtureArchive('promoted');

test.each([
  'list',
  'verify --json --quick',
  'find --json',
  'cleanup -n | 000000010000000000000006',
  'backups --json',
  'fetch | 0000000000000000000000FF /none',
])('%s takes its directory with -D as without', async (line) => {
  const [command = [], rest = []] = line.split(' | ').map((words) => words.split(' '));
  const said = ({ code, stdout, stderr }: Awaited<ReturnType<typeof run>>) => ({
    ...{ code, stderr, stdout: stdout.replace(/"milliseconds":\d+/, '') },
  });
  const bare = said(await run('walkeep', ...command, directory, ...rest));
  expect(said(await run('walkeep', ...command, '-D', directory, ...rest))).toEqual(bare);
  expect(said(await run('walkeep', ...command, `--directory=${directory}`, ...rest))).toEqual(bare);
  expect(bare.stderr).not.toMatch(/no directory|too many/);
});

test('-D and a place without it are two places', async () => {
  const other = scratchDir('other');
  const { code, stderr } = await run('walkeep', 'verify', '-D', directory, other);
  expect(code).toBe(2);
  expect(stderr).toContain(`too many command-line arguments (first is "${other}")`);
});
