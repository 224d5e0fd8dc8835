import { chmodSync, cpSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot, scratchDir } from './scratch.js';

/**
 * A copy of the built package that the servers' user can read and a test can spoil; gives its
 * directory. Of the dependencies only what restore_command may load is in it.
 */
export function copyPackage(): string {
  const root = scratchDir('package');
  chmodSync(root, 0o755);
  for (const name of ['bin', 'dist', 'package.json']) {
    cpSync(join(packageRoot, name), join(root, name), {
      recursive: true,
      filter: (path) => !/\.(d\.ts|map)$/.test(path),
    });
  }
  mkdirSync(join(root, 'node_modules'));
  const dependency = join('node_modules', 'crc-32');
  cpSync(join(packageRoot, dependency), join(root, dependency), { recursive: true });
  return root;
}
