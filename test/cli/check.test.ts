import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { readExposition } from '../support/exposition.js';
import { scratchDir } from '../support/scratch.js';
import { run } from './run.js';

/** Of a server that is not there: what a check says without one. */
const check = (...args: string[]) => {
  const directory = scratchDir('checked');
  const server = `host=${directory}/none user=nobody`;
  return run('walkeep', 'check', '-w', '-D', directory, '-d', server, ...args);
};

test.each([
  ['--warning=64', 'invalid value "64" for option --warning'],
  ['--warning=64MB,1GB', 'invalid value "64MB,1GB" for option --warning'],
  ['--critical=', 'invalid value "" for option --critical'],
  ['--critical=5s,', 'invalid value "5s,"'],
])('%s is refused', async (option, message) => {
  const { code, stderr } = await check(option);
  expect(code).toBe(2);
  expect(stderr).toContain(message);
  expect(stderr).toContain('hint: Give a size (kB, MB, GB, TB), a time');
});

test('a warning that would come behind the failure is refused', async () => {
  const { code, stderr } = await check('--warning=1GB,5s', '--critical=1MB');
  expect(code).toBe(2);
  expect(stderr).toContain('--warning 1GB,5s is beyond --critical 1MB');
  const apart = await check('--warning=5m', '--critical=1MB');
  expect(apart.stderr).toBe('');
});

test('metrics are written beside what is printed, also of a check that fails', async () => {
  const file = join(scratchDir('metrics'), 'check.prom');
  const { code, stdout } = await check('--nagios', '--textfile', file);
  expect(code).toBe(2);
  expect(stdout).toMatch(/^WALKEEP CRITICAL - /);
  const samples = readExposition(readFileSync(file, 'utf8'));
  expect(samples).toContainEqual(
    expect.objectContaining({ name: 'walkeep_check_status', value: 2 }),
  );
  const lost = await check('--textfile', join(file, 'below'));
  expect(lost.code).toBe(2);
  expect(lost.stderr).toMatch(/could not create file .*Not a directory/);
});
