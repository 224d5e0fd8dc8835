import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { packageFile, VERSION } from '../src/package.js';
import { packageRoot } from './support/scratch.js';

it('has the version of package.json in its text', () => {
  const { version } = JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8'));
  expect(VERSION).toBe(version);
});

it('finds the files of its own package, and no others', () => {
  expect(packageFile('../bin/walkeep')).toBe(join(packageRoot, 'bin', 'walkeep'));
  expect(packageFile('codec/worker.js')).toBeUndefined();
});
