import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { commitArchive } from '../support/commit-archive.js';
import { packageRoot } from '../support/scratch.js';

/** The built package runs in threads what the sources run in one. */
const PROGRAM = `
const [module, directory, jobs] = process.argv.slice(1);
const { openArchive } = await import(module);
const archive = await openArchive(directory);
const found = [];
for await (const event of archive.find({ jobs: Number(jobs), jobBytes: 1024 * 1024 })) {
  found.push([event.kind, String(event.lsn), event.xid]);
}
console.log(JSON.stringify(found));
`;

test('threads find what one finds', () => {
  const { directory } = commitArchive();
  const index = join(packageRoot, 'dist', 'index.js');
  const found = (jobs: number) =>
    execFileSync(
      process.execPath,
      ['--input-type=module', '-e', PROGRAM, index, directory, `${jobs}`],
      { encoding: 'utf8' },
    );
  const one = JSON.parse(found(1));
  expect(one.length).toBeGreaterThan(1000);
  expect(JSON.parse(found(3))).toEqual(one);
});
