import { join } from 'node:path';
import type { FileStat } from '../../files/tree-file-system.js';
import { compareKeys, isKey } from '../key.js';
import { as } from './errors.js';
import type { StoreRoot } from './root.js';

/** Files that are looked at at the same time. */
const WIDTH = 32;

/**
 * The objects below a directory in the order of their keys: what is in a directory stands where its
 * name with a slash does. Links are not followed, and what cannot be an object is left out.
 * @param directory its part of the keys, with the slash; empty: all
 */
export async function* walk(
  root: StoreRoot,
  directory: string,
  { prefix, after }: { prefix: string; after: string | undefined },
  signal: AbortSignal,
): AsyncGenerator<{ key: string; stat: FileStat }, void, void> {
  const path = join(root.path, directory);
  const entries = await root.fs.readdir(path).catch((e: NodeJS.ErrnoException) => {
    if (directory !== '' && (e.code === 'ENOENT' || e.code === 'ENOTDIR')) return [];
    throw as('open directory', path)(e);
  });
  const wanted = entries
    .filter(({ kind }) => kind === 'file' || kind === 'directory')
    .map(({ name, kind }) => directory + name + (kind === 'directory' ? '/' : ''))
    .filter((key) => isKey(key.replace(/\/$/, '')) && mayHave(key, prefix, after))
    .sort(compareKeys);
  for (let at = 0; at < wanted.length; ) {
    signal.throwIfAborted();
    const key = wanted[at] as string;
    if (key.endsWith('/')) {
      at += 1;
      yield* walk(root, key, { prefix, after }, signal);
      continue;
    }
    const files: string[] = [];
    for (const k of wanted.slice(at, at + WIDTH)) {
      if (k.endsWith('/')) break;
      files.push(k);
    }
    const stats = await Promise.all(files.map((k) => look(root, k)));
    at += files.length;
    for (const [i, stat] of stats.entries()) {
      // Removed meanwhile, or something else by now.
      if (stat?.kind === 'file') yield { key: files[i] as string, stat };
    }
  }
}

function look(root: StoreRoot, key: string): Promise<FileStat | undefined> {
  const path = join(root.path, key);
  return root.fs.stat(path).catch(as('look at', path));
}

/** True if a key, or one of those that begin with it where it is a directory, is asked for. */
function mayHave(key: string, prefix: string, after: string | undefined): boolean {
  const below = key.endsWith('/');
  if (!key.startsWith(prefix) && !(below && prefix.startsWith(key))) return false;
  if (after === undefined || compareKeys(key, after) > 0) return true;
  return below && after.startsWith(key);
}
