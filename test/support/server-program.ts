import { cpSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { packageRoot, scratchDir, serverUser } from './scratch.js';

let root: string | undefined;

/** True if whoever is neither owner nor in the group may pass through all directories to `path`. */
function openToAll(path: string): boolean {
  for (let dir = path; ; dir = dirname(dir)) {
    if ((statSync(dir).mode & 0o001) === 0) return false;
    if (dir === dirname(dir)) return true;
  }
}

/** The packages that a package needs to run, as directories below ours; npm puts them side by side. */
function dependencies(dir: string, found = new Set<string>()): Set<string> {
  const text = readFileSync(join(packageRoot, dir, 'package.json'), 'utf8');
  for (const name of Object.keys(JSON.parse(text).dependencies ?? {})) {
    const path = `node_modules/${name}`;
    if (found.has(path)) continue;
    found.add(path);
    dependencies(path, found);
  }
  return found;
}

/**
 * The shell words that run a built `walkeep` as the servers' user, for archive_command and its
 * kin: from a copy where that user cannot read the checkout.
 */
export function walkeepForServer(): string {
  if (
    root === undefined &&
    (serverUser.uid === undefined || openToAll(join(packageRoot, 'dist')))
  ) {
    root = packageRoot;
  }
  if (root === undefined) {
    root = scratchDir('program', { forServer: true });
    for (const part of ['bin', 'dist', 'package.json', ...dependencies('.')]) {
      cpSync(join(packageRoot, part), join(root, part), { recursive: true });
    }
  }
  return `"${process.execPath}" "${join(root, 'bin', 'walkeep')}"`;
}
