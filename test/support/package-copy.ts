import { chmodSync, cpSync, existsSync, readFileSync } from 'node:fs';
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
  for (const name of dependencies()) {
    const path = join('node_modules', name);
    cpSync(join(packageRoot, path), join(root, path), { recursive: true });
  }
  return root;
}

/** What the package needs to run, and what that needs. */
function dependencies(): Set<string> {
  const found = new Set<string>();
  const visit = (directory: string): void => {
    const { dependencies = {} } = JSON.parse(
      readFileSync(join(packageRoot, directory, 'package.json'), 'utf8'),
    ) as { dependencies?: Record<string, string> };
    for (const name of Object.keys(dependencies)) {
      const own = join(directory, 'node_modules', name);
      // One of another version lies inside the package that needs it, and comes with that package.
      if (directory !== '.' && existsSync(join(packageRoot, own))) {
        visit(own);
        continue;
      }
      if (found.has(name) || !existsSync(join(packageRoot, 'node_modules', name))) continue;
      found.add(name);
      visit(join('node_modules', name));
    }
  };
  visit('.');
  return found;
}
