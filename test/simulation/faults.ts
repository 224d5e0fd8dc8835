import { basename } from 'node:path';
import type { FileSystem } from '../../src/files/file-system.js';
import type { Random } from './random.js';
import type { CallFate } from './simulated-fs.js';

/** A segment's name without the zeros in it. */
export function shortName(path: string): string {
  return basename(path).replace(/^0*(\w)0{8}0*(?=\w)/, '$1/');
}

/** How a call fails. */
export function faultFor(op: keyof FileSystem, random: Random): CallFate {
  if ((op === 'writev' || op === 'writevSync') && random.chance(0.4)) return { kind: 'short' };
  return { kind: 'errno', code: random.pick(['EIO', 'ENOSPC']) };
}
