import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { packageRoot } from './scratch.js';

/** A version of Node.js to run the package with. */
export interface Node {
  major: number;
  /** The directory that `node` is in: what a PATH begins with. */
  bin: string;
  /** Why there is none: what the name of a skipped test says. */
  missing: string;
}

/** The versions that the package is tried with, each on its own. */
export const NODES: readonly Node[] = [22, 24, 26].map((major) => {
  if (Number(process.versions.node.split('.')[0]) === major) {
    return { major, bin: dirname(process.execPath), missing: '' };
  }
  const bin = join(packageRoot, '.ci', 'nodes', 'node_modules', `node-${major}`, 'bin');
  const missing = existsSync(join(bin, 'node')) ? '' : 'get it with "npm ci --prefix .ci/nodes"';
  return { major, bin, missing };
});
