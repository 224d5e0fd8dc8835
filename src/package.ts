import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** Version of this package: in the text, so that a bundle has it and not that of its own package. */
export const VERSION = '0.1.0';

/**
 * Where the built package's modules are; nothing in a bundle that is CommonJS. This file has to stay
 * at the top: `dist/fetch.cjs` and its like, in which many modules are one, lie there too, and so
 * find what they do.
 */
const HERE = import.meta.url as string | undefined;

let isPackage: boolean | undefined;

/** Path of the module at `path` (`codec/worker.js`) below `dist`, there or not. */
export function modulePath(path: string): string | undefined {
  return HERE ? fileURLToPath(new URL(path, HERE)) : undefined;
}

/**
 * Path of a file of the built package, relative to `dist`: a thread's program, or the command's.
 * Undefined where it is not there: run from the sources, or in somebody else's bundle, beside which
 * another file of that name may lie.
 */
export function packageFile(path: string): string | undefined {
  const found = modulePath(path);
  if (!found || !existsSync(found)) return undefined;
  isPackage ??= isOwn(modulePath('../package.json') as string);
  return isPackage ? found : undefined;
}

function isOwn(path: string): boolean {
  try {
    return (JSON.parse(readFileSync(path, 'utf8')) as { name?: string }).name === 'walkeep';
  } catch {
    return false;
  }
}
